"""The check on a machine with a GPU: what is tested on CUDA, and what serving and learning there are measured by.

ResNet-50 on JPEGs of 224 × 224 in bfloat16, random weights: the served rate beside the raw forward rate at the same
batch, swaps of whole versions under load, predictions during an update. Each part says what it found in a line of
JSON with the device's name; a part that fails is told, and the others go on.
"""

import argparse
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]

import httpx  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
import wrk  # noqa: E402
from PIL import Image  # noqa: E402
from stock import Stock  # noqa: E402
from torch import Tensor  # noqa: E402

from app.networks.packing import folded  # noqa: E402
from app.serving.cuda_graphs import CudaGraphs, CudaLane  # noqa: E402

BATCHES = (1, 8, 32, 64)
BODIES = 64
PATIENCE_SECONDS = 150.0  # with one part
ON_CUDA = ("tests/app/serving/test_execution.py", "tests/app/test_loading.py", "tests/app/networks/test_mapped.py")
TAUGHT_ON_CUDA = ("tests/worker", "tests/checks/test_learning.py")


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def photograph(size: int, seed: int) -> bytes:
    """A JPEG of soft blotches: about as many bytes as a photograph of that size has."""
    coarse = random.Random(seed).randbytes((size // 4) ** 2 * 3)
    written = io.BytesIO()
    small = Image.frombytes("RGB", (size // 4, size // 4), coarse)
    small.resize((size, size), Image.Resampling.BICUBIC).save(written, "JPEG", quality=90)
    return written.getvalue()


def raw(given: argparse.Namespace) -> dict[str, Any]:
    """Inputs a second of the forward pass alone, on inputs that are there already: as torch runs it, and recorded."""
    device = torch.device(given.device)
    network = torchvision.models.get_model(given.architecture, weights=None).eval()
    network = network.to(device=device, dtype=torch.bfloat16, memory_format=torch.channels_last)
    found: dict[str, Any] = {}
    with torch.inference_mode():
        for batch in BATCHES:
            inputs = torch.randn(batch, 3, given.size, given.size, device=device, dtype=torch.bfloat16)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            found[f"batch {batch}"] = {"eager": _rate(lambda one=inputs: network(one), batch, device)}
            if device.type == "cuda":
                lane = CudaLane(device)
                for name, way in (
                    ("recorded", network),
                    ("folded and recorded", folded(network, inputs[:1], torch.bfloat16)),
                ):
                    graphs = CudaGraphs(way, lane)
                    found[f"batch {batch}"][name] = _rate(lambda one=inputs, run=graphs: run(one), batch, device)
    return found


def _rate(step: Callable[[], Tensor], batch: int, device: torch.device) -> list[float]:
    """Median, least and most of five."""
    for _ in range(5):
        step()
    rates = []
    for _ in range(5):
        _settled(device)
        started = time.perf_counter()
        steps = 0
        while steps < 3 or time.perf_counter() - started < 0.2:
            step()
            steps += 1
        _settled(device)
        rates.append(round(batch * steps / (time.perf_counter() - started), 1))
    return [statistics.median(rates), min(rates), max(rates)]


def _settled(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def served(given: argparse.Namespace) -> dict[str, Any]:
    """Answers a second over HTTP, one JPEG each, by the number of clients and of serving processes."""
    found: dict[str, Any] = {}
    for processes in given.processes:
        with tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder:
            bodies = Path(folder) / "bodies"
            wrk.write_bodies(bodies, [photograph(given.size, seed) for seed in range(BODIES)])
            form = {"architecture": given.architecture, "size": given.size, "versions": 1, "processes": processes}
            with Stock(Path(folder) / "data", **form) as stock:
                port = int(stock.url.rpartition(":")[2])
                headers = {"Content-Type": "image/jpeg", "Authorization": f"Bearer {stock.key}"}

                def load(clients: int, seconds: float) -> wrk.Load:
                    return wrk.load(port, "/v1/models/stock/predict", headers, bodies, clients=clients, seconds=seconds)  # noqa: B023

                load(max(given.clients), 4)
                for clients in given.clients:
                    before = told(stock.url)
                    one = load(clients, given.seconds)
                    found[f"{processes} processes, {clients} clients"] = {
                        "a second": round(one.rps, 1),
                        "p50, p99, max ms": [one.p50_ms, one.p99_ms, one.max_ms],
                        "errors": one.errors,
                        "means": means(before, told(stock.url)),
                    }
    return found


def told(url: str) -> dict[str, float]:
    """What the server has measured: sums and counts by name, over all labels."""
    found: dict[str, float] = {}
    for line in httpx.get(f"{url}/metrics", timeout=10, trust_env=False).text.splitlines():
        name = line.split("{")[0].split(" ")[0]
        if name.startswith("perennial_") and name.endswith(("_sum", "_count")):
            found[name] = found.get(name, 0.0) + float(line.split()[-1])
    return found


def means(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """The mean of what was measured between two looks: seconds, or sizes of batches."""
    found = {}
    for name in (name.removesuffix("_sum") for name in after if name.endswith("_sum")):
        count = after[f"{name}_count"] - before.get(f"{name}_count", 0)
        if count:
            share = (after[f"{name}_sum"] - before.get(f"{name}_sum", 0)) / count
            found[name.removeprefix("perennial_")] = round(share, 5)
    return found


def swaps(given: argparse.Namespace) -> dict[str, Any]:
    arguments = ["--architecture", given.architecture, "--size", str(given.size), "--rounds", str(given.rounds)]
    arguments += ["--seconds", str(round(given.seconds))]
    return _other(HERE.parent / "swap_under_load.py", *arguments)


def interference(given: argparse.Namespace) -> dict[str, Any]:
    settings = [f"DEVICE={given.device}", f"SERVER_DEVICE={given.device}", "SERVER_PRECISION=bfloat16"]
    arguments = ["--architecture", given.architecture, "--size", str(given.size), "--rounds", str(given.rounds)]
    arguments += ["--seconds", str(given.seconds)]
    return _other(HERE / "interference.py", *arguments, *(part for one in settings for part in ("--set", one)))


def _other(script: Path, *arguments: str) -> dict[str, Any]:
    """What another benchmark finds."""
    _, out, errors = _ran([sys.executable, str(script), *arguments], dict(os.environ))
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{script.name} found nothing: {out[-1500:]}{errors[-3000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def tests(given: argparse.Namespace) -> dict[str, Any]:
    """The tests that need CUDA."""
    return _tested(given, ON_CUDA, "cpu")


def taught(given: argparse.Namespace) -> dict[str, Any]:
    """The tests of learning, with the learner on the device."""
    return _tested(given, TAUGHT_ON_CUDA, given.device)


def _tested(given: argparse.Namespace, paths: Sequence[str], device: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", *given.pytest.split(), *paths]
    # Several processes of tests with as many threads each as there are cores only wait for one another.
    code, out, errors = _ran(command, {**os.environ, "TEST_DEVICE": device, "OMP_NUM_THREADS": "1"})
    lines = out.splitlines()
    if code:
        sys.stderr.write("\n".join(lines[-200:]) + errors[-1500:] + "\n")
    return {"code": code, "last": lines[-1:]}


def _ran(command: Sequence[str], surroundings: dict[str, str]) -> tuple[int | None, str, str]:
    """Run to the end, or for so long that a lent machine is not used up; what it has started ends with it."""
    process = subprocess.Popen(
        command,
        env=surroundings,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        out, errors = process.communicate(timeout=PATIENCE_SECONDS)
        errors += f"\nended after {PATIENCE_SECONDS} s"
    return process.returncode, out, errors


PARTS = {part.__name__: part for part in (tests, taught, raw, served, swaps, interference)}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 32, 64, 128])
    parser.add_argument("--processes", type=int, nargs="*", default=[1])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3, help="of swaps and of updates under load")
    parser.add_argument("--pytest", default="", help="more arguments for pytest")
    return parser.parse_args()


def main() -> int:
    given = parsed()
    os.environ |= {"PERENNIAL_SERVER_DEVICE": given.device, "PERENNIAL_SERVER_PRECISION": "bfloat16"}
    failed = 0
    for name in given.only:
        started = time.monotonic()
        try:
            found = PARTS[name](given)
        except (Exception, SystemExit):  # noqa: BLE001  # the next part may tell more
            found, failed = {"failed": traceback.format_exc()[-4000:]}, 1
        about = {"device": name_of(torch.device(given.device)), "torch": torch.__version__}
        print(json.dumps({"part": name, **about, **found, "took, s": round(time.monotonic() - started, 1)}), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
