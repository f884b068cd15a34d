"""The peers' environments: each its own, made on demand, since no two of them agree on the libraries they stand on.

    benchmarks/serving/peers.py install [NAME …]

They lie in `.peers/` of the clone, or where BENCH_PEERS says. The project's own rows need none.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SAME = ("torch==2.15.0", "torchvision==0.29.2", "pillow==13.0.0", "numpy==2.4.6")
"""What all have in common with the lock of the project: nobody is to win by another torch."""

FAST_HTTP = ("uvloop==0.23.0", "httptools==0.9.0")
"""Not what each peer asks for, but all that stand on uvicorn are faster with it, and so are we."""

PEERS = {
    "litserve": (*SAME, *FAST_HTTP, "litserve==0.2.19"),
    "bentoml": (*SAME, *FAST_HTTP, "bentoml==1.4.40"),
    "ray": (*SAME, *FAST_HTTP, "ray[serve]==2.60.0"),
    "mlserver": (*SAME, "uvloop==0.21.0", "httptools==0.9.0", "mlserver==1.7.1"),  # its workers fail with a later loop
    "torchserve": (
        *(*SAME, "torchserve==0.12.0", "torch-model-archiver==0.12.0", "torch-workflow-archiver==0.2.15"),
        *("pyyaml==6.0.4", "psutil==7.2.2", "setuptools==84.2.1"),
    ),
}


def folder() -> Path:
    return Path(os.environ.get("BENCH_PEERS", ROOT / ".peers")).resolve()


def python_of(peer: str) -> Path | None:
    """The interpreter of a peer's environment; None where it is not installed. "own" is this one."""
    if peer == "own":
        return Path(sys.executable)
    python = folder() / peer / "bin" / "python"
    return python if (folder() / peer / ".installed").exists() else None


def install(peer: str) -> None:
    """Make a peer's environment anew, with this interpreter's Python."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is not there; `make install` brings it.")
    if peer == "torchserve" and shutil.which("java") is None:
        raise SystemExit("TorchServe needs Java 17 or later on the path.")
    place = folder() / peer
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(place)], check=True)
    environment = {**os.environ, "VIRTUAL_ENV": str(place)}
    subprocess.run([uv, "pip", "install", "--quiet", *PEERS[peer]], check=True, env=environment)
    (place / ".installed").write_text("\n".join(PEERS[peer]) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["install", "list"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)}; all that are missing if none")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(PEERS)
    if unknown:
        parser.error(f"there is no peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    if arguments.command == "install":
        for name in arguments.names or [peer for peer in PEERS if python_of(peer) is None]:
            print(f"installing {name}", file=sys.stderr)
            install(name)
    for name in PEERS:
        print(f"{name}: {python_of(name) or 'not installed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
