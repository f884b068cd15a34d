"""Swaps under load: 8 connections ask a ResNet-18 without pause while another whole version goes live every second.

Each round measures the slowest answer without swaps, then with them; the bound is on the medians over the rounds.
Counted besides: requests that failed, answers whose label is not their version's, and how long rollbacks to a warm
version take, idle and under load: the call waits for every serving process. The load is wrk's (Debian's package), so
that it takes little of the machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from service import report
from stock import Stock

CONNECTIONS = 8
VERSIONS = 8
RATIO, SLACK_MS = 1.5, 50.0
ROLLBACK_MS, ROLLBACK_OF_SEVERAL_MS = 50.0, 1000.0


def picture(size: int) -> bytes:
    pixels = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    buffer = BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


class Load:
    """wrk in the background; `found` waits for its end."""

    def __init__(self, stock: Stock, body: Path, seconds: int) -> None:
        script = Path(__file__).with_suffix(".lua")
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
        url = f"{stock.url}/v1/models/stock/predict"
        self._process = subprocess.Popen([*command, url, "--", str(body), stock.key], stdout=subprocess.PIPE, text=True)

    def runs(self) -> bool:
        return self._process.poll() is None

    def found(self) -> dict[str, Any]:
        out, _ = self._process.communicate(timeout=120)
        (line,) = (line for line in out.splitlines() if line.startswith("FOUND "))
        found: dict[str, Any] = json.loads(line.removeprefix("FOUND "))
        return found


def swapped(stock: Stock, load: Load) -> list[float]:
    """Make another version live each second while the load runs; give the milliseconds until each was served."""
    took = []
    due = time.monotonic() + 0.5
    while load.runs():
        time.sleep(max(0.0, due - time.monotonic()))
        if load.runs():
            took.append(float(stock.promote_next()["took_ms"]))
        due += 1.0
    return took


def rollbacks(stock: Stock, count: int) -> list[float]:
    took = []
    for _ in range(count):
        stock.promote_next()
        took.append(float(stock.roll_back()["took_ms"]))
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--processes", type=int, default=1, help="serving processes")
    arguments = parser.parse_args()
    before, during, took = [], [], []
    with tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder:
        body = Path(folder) / "picture.jpg"
        body.write_bytes(picture(arguments.size))
        form = {"architecture": arguments.architecture, "size": arguments.size, "versions": VERSIONS}
        form["processes"] = arguments.processes
        with Stock(Path(folder) / "data", **form) as stock:
            Load(stock, body, 3).found()
            for _ in range(arguments.rounds):
                before.append(Load(stock, body, arguments.seconds).found())
                load = Load(stock, body, arguments.seconds)
                took += swapped(stock, load)
                during.append(load.found())
            idle = rollbacks(stock, 5)
            load = Load(stock, body, 6)
            loaded = rollbacks(stock, 5)
            load.found()
    slowest = [[one["max_ms"] for one in runs] for runs in (before, during)]
    calm, swapping = (statistics.median(one) for one in slowest)
    lost, mixed = (sum(one[what] for one in [*before, *during]) for what in ("lost", "mixed"))
    limit = ROLLBACK_MS if arguments.processes == 1 else ROLLBACK_OF_SEVERAL_MS
    found = {
        "processes": arguments.processes,
        "answers": sum(one["answers"] for one in [*before, *during]),
        "swaps": len(took),
        "lost": lost,
        "mixed": mixed,
        "slowest before, ms": slowest[0],
        "slowest during, ms": slowest[1],
        "during / before": round(swapping / calm, 2),
        "p99 before, ms": [one["p99_ms"] for one in before],
        "p99 during, ms": [one["p99_ms"] for one in during],
        "answers before, during": [[one["answers"] for one in runs] for runs in (before, during)],
        "until served, ms, median and slowest": [statistics.median(took), max(took)],
        "rollback idle, ms": idle,
        "rollback under load, ms": loaded,
    }
    held = (
        lost == mixed == 0
        and (swapping <= RATIO * calm or swapping <= calm + SLACK_MS)
        and statistics.median(idle) <= limit
    )
    return report("swap_under_load", found, held=held)


if __name__ == "__main__":
    sys.exit(main())
