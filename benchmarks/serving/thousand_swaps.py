"""A thousand swaps of whole versions, each read from its file: memory stays flat and no file stays open.

The first tenth fills what is filled once. Memory goes up and down by a network or two, as a trial of one is under way
or not, so the medians of the fifth that follows and of the last fifth are compared; and of open files the most in each.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from service import report
from stock import Stock

VERSIONS = 8
GROWTH = 0.02


def resident(pid: int) -> float:
    """Give the MiB of a process, of files that it maps as well."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def weight_maps(pid: int) -> int:
    return Path(f"/proc/{pid}/maps").read_text().count(".safetensors")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--size", type=int, default=32)
    arguments = parser.parse_args()
    memory, files, maps, took = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder:
        form = {"architecture": arguments.architecture, "size": arguments.size, "versions": VERSIONS}
        with Stock(Path(folder) / "data", **form) as stock:
            for _ in range(arguments.swaps):
                took.append(stock.promote_next()["took_ms"])
                memory.append(resident(stock.pid))
                files.append(open_files(stock.pid))
                maps.append(weight_maps(stock.pid))
    start = arguments.swaps // 10
    few = max(1, arguments.swaps // 5)
    first, last = statistics.median(memory[start : start + few]), statistics.median(memory[-few:])
    opened, left = max(files[start : start + few]), max(files[-few:])
    mapped, still = max(maps[start : start + few]), max(maps[-few:])
    found = {
        "swaps": len(took),
        "a swap, ms, median and slowest": [statistics.median(took), max(took)],
        "resident after a tenth, MiB": round(first, 1),
        "resident at the end, MiB": round(last, 1),
        "growth": f"{(last / first - 1):.2%}",
        "open files, the most after a tenth and at the end": [opened, left],
        "mapped weight files, the most after a tenth and at the end": [mapped, still],
    }
    held = last <= first * (1 + GROWTH) and left <= opened and still <= mapped
    return report("thousand_swaps", found, held=held)


if __name__ == "__main__":
    sys.exit(main())
