"""The same load for minutes: memory, open files, errors and p99 as time goes on. Ends by itself."""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `service`, which all benchmarks share

import on_perennial
import reference
from processes import open_files, resident_bytes
from rows import Row, Running, Setting, running
from service import report
from system import MODELS

SLICE_SECONDS = 10.0
GROWTH = 1.03
SLOWER = 1.5


def slices(server: Running, clients: int, seconds: float) -> list[dict[str, Any]]:
    """Load in slices; after each, a moment of rest and a look at the processes."""
    found = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        load = server.load(clients, SLICE_SECONDS)
        time.sleep(0.5)  # connections of the load are closed by then
        pids = server.pids()
        found.append(
            {
                "rps": round(load.rps),
                "p99_ms": round(load.p99_ms, 1),
                "errors": load.errors,
                "MB": round(resident_bytes(pids) / 1e6, 1),
                "files": open_files(pids),
            }
        )
    return found


def third(values: list[float], number: int) -> float:
    """The median of the first (0), second or last (2) third."""
    size = max(1, len(values) // 3)
    return statistics.median(values[number * size : (number + 1) * size])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="mlp")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    row = Row(on_perennial.system(arguments.processes), arguments.model, "fp32")
    with tempfile.TemporaryDirectory(prefix="bench-shared-") as shared:
        wanted = reference.write(Path(shared))[arguments.model]
        with running(row, Setting(1), wanted, Path(shared)) as server:
            server.load(arguments.clients, SLICE_SECONDS)  # what fills once is full
            begun = slices(server, arguments.clients, arguments.seconds)
    memory = [one["MB"] for one in begun]
    files = [one["files"] for one in begun]
    slow = [one["p99_ms"] for one in begun]
    found = {
        "model": arguments.model,
        "seconds": arguments.seconds,
        "clients": arguments.clients,
        "answers": round(sum(one["rps"] for one in begun) * SLICE_SECONDS),
        "errors": sum(one["errors"] for one in begun),
        "memory, last third over first": round(third(memory, 2) / third(memory, 0), 3),
        "open files, first and last": [files[0], files[-1]],
        "p99, last third over first": round(third(slow, 2) / third(slow, 0), 2),
        "over time": begun,
    }
    held = (
        found["errors"] == 0
        and found["memory, last third over first"] <= GROWTH
        and files[-1] <= files[0] + 2  # the log's database may be opened by one more thread
        and found["p99, last third over first"] <= SLOWER
    )
    return report("soak", found, held=held)


if __name__ == "__main__":
    sys.exit(main())
