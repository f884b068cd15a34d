"""The load: wrk with one thread and keep-alive connections, against this machine alone.

It is written in C and takes a few percent of one core at the rates of this benchmark.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("cycle.lua")
TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class Load:
    """What one run of the load found."""

    seconds: float
    answers: int  # with any status
    refused: int  # of them with a status of 400 and above
    broken: int  # connections that were not opened, or ended or fell silent in the middle
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    @property
    def rps(self) -> float:
        """Good answers a second."""
        return (self.answers - self.refused) / self.seconds

    @property
    def errors(self) -> int:
        return self.refused + self.broken


def write_bodies(folder: Path, bodies: Sequence[bytes]) -> None:
    """Lay down what is to be posted."""
    folder.mkdir(exist_ok=True)
    for number, body in enumerate(bodies):
        (folder / str(number)).write_bytes(body)


def load(
    port: int,
    path: str,
    headers: Mapping[str, str],
    bodies: Path,
    *,
    clients: int,
    seconds: float,
    rate: float | None = None,
) -> Load:
    """Ask over so many connections for so long: without pause, or `rate` times a second whatever is answered.

    wrk knows whole seconds alone; a part of one is rounded, to one at least.
    """
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("wrk is not there; Debian's package of that name brings it.")
    command = [
        *(
            program,
            "--threads",
            "1",
            "--connections",
            str(clients),
            "--duration",
            f"{max(1, round(seconds))}s",
            "--latency",
        ),
        *("--timeout", f"{TIMEOUT_SECONDS}s", "--script", str(SCRIPT)),
        *(part for name, value in headers.items() for part in ("--header", f"{name}: {value}")),
        *(f"http://127.0.0.1:{port}{path}", "--", str(bodies), str(len(list(bodies.iterdir())))),
        *([] if rate is None else [f"{rate:g}"]),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 2 * TIMEOUT_SECONDS, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"wrk failed: {ran.stdout[-500:]}{ran.stderr[-500:]}")
    return parse(ran.stdout)


def parse(output: str) -> Load:
    """Read the line that `cycle.lua` ends with."""
    lines = [line for line in output.splitlines() if line.startswith('{"duration"')]
    if not lines:
        raise ValueError(f"wrk told no result: {output[-500:]!r}")
    found = json.loads(lines[-1])
    return Load(
        seconds=found["duration"] / 1e6,
        answers=found["requests"],
        refused=found["status"],
        broken=sum(found[kind] for kind in ("connect", "read", "write", "timeout")),
        **{f"{name}_ms": found[name] / 1000 for name in ("p50", "p90", "p99", "max")},
    )
