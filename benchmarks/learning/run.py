"""Run the published protocols of continual learning: a table on stderr, one JSON object on stdout.

Each row is taught with several seeds; the exit code is 0 if every row that has a bound holds. With `--select` a row's
grid is measured instead, on training pictures held out from what is taught: the test pictures are not looked at.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import analytic
import consolidating
import replay
import torch
from pictures import SHARED, Pictures, load
from protocol import Figures, Protocol
from rich.console import Console
from rich.table import Table

ROWS = {row.name: row for row in [*replay.PROTOCOLS, *consolidating.PROTOCOLS, *analytic.PROTOCOLS]}
Job = tuple[str, int, dict[str, Any], bool, Path]


@lru_cache
def _pictures(name: str, folder: Path, held_out: bool) -> Pictures:
    pictures = load(name, folder)
    return pictures.held_out() if held_out else pictures


def measure(job: Job) -> tuple[Job, Figures]:
    """One row with one seed, in whatever process: one thread, the same figures every time."""
    name, seed, settings, held_out, folder = job
    torch.set_num_threads(1)
    row = ROWS[name]
    pictures = _pictures(row.data, folder, held_out)
    started, spent = time.monotonic(), time.process_time()
    figures = row.measure(pictures, seed, **settings)
    return job, figures | {"seconds": time.monotonic() - started, "cpu seconds": time.process_time() - spent}


def measured(jobs: list[Job], processes: int, console: Console) -> Iterator[tuple[Job, Figures]]:
    """All jobs, in the order in which they end."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for number, (job, figures) in enumerate(pool.imap_unordered(measure, jobs), 1):
            accuracy, seconds = figures["accuracy"], figures["seconds"]
            console.print(
                f"{number}/{len(jobs)} {job[0]} seed {job[1]}: {accuracy:.2f} in {seconds:.0f} s", style="dim"
            )
            yield job, figures


def summary(row: Protocol, found: dict[int, Figures]) -> dict[str, Any]:
    """Mean and spread over the seeds, ours beside the reference."""
    accuracies = [found[seed]["accuracy"] for seed in sorted(found)]
    mean = statistics.fmean(accuracies)
    others = {
        figure: round(statistics.fmean(figures[figure] for figures in found.values()), 2)
        for figure in next(iter(found.values()))
        if figure not in {"accuracy", "seconds", "cpu seconds"}
    }
    return {
        "accuracy": round(mean, 2),
        "deviation": round(statistics.stdev(accuracies), 2) if len(accuracies) > 1 else None,
        "accuracies": [round(accuracy, 2) for accuracy in accuracies],
        "seeds": len(accuracies),
        "reference": row.reference,
        "bound": row.bound(),
        "holds": row.holds(mean),
        "settings": dict(row.settings),
        "chosen": row.chosen,
        "cpu seconds": round(sum(figures["cpu seconds"] for figures in found.values()), 1),
        **others,
    }


def table(rows: dict[str, dict[str, Any]], console: Console) -> None:
    grid = Table("protocol", "ours, %", "seeds", "reference, %", "bound", "holds", "CPU s", title_justify="left")
    for name, row in rows.items():
        spread = f" ± {row['deviation']:.2f}" if row["deviation"] is not None else ""
        verdict = {True: "yes", False: "NO", None: ""}[row["holds"]]
        ours = f"{row['accuracy']:.2f}{spread}"
        grid.add_row(name, ours, str(row["seeds"]), row["reference"], row["bound"], verdict, str(row["cpu seconds"]))
    console.print(grid)


def select(row: Protocol, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure every setting of the row's grid on held-out training pictures; best first."""
    changes = [dict(zip(row.grid, values, strict=True)) for values in itertools.product(*row.grid.values())]
    jobs: list[Job] = [
        (row.name, 100 + seed, {**row.settings, **change}, True, arguments.data_dir)
        for change in changes
        for seed in range(arguments.seeds)
    ]
    found: dict[int, list[float]] = {number: [] for number in range(len(changes))}
    for job, figures in measured(jobs, arguments.processes, console):
        number = next(n for n, change in enumerate(changes) if job[2] == {**row.settings, **change})
        found[number].append(figures["accuracy"])
    ranked = sorted(found, key=lambda number: -statistics.fmean(found[number]))
    grid = Table(*row.grid, "held out, %", title=row.name, title_justify="left")
    for number in ranked:
        grid.add_row(*map(str, changes[number].values()), f"{statistics.fmean(found[number]):.2f}")
    console.print(grid)
    return {
        "row": row.name,
        "held out": [{**changes[number], "accuracy": round(statistics.fmean(found[number]), 2)} for number in ranked],
    }


def machine() -> dict[str, Any]:
    """What the seconds have to be read beside."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), **versions}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="rows whose names begin so; may be repeated")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--select", action="store_true", help="compare the rows' grids, without the test")
    parser.add_argument("--data-dir", type=Path, default=SHARED, help="where mnist.tar and fashion_mnist.tar lie")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    rows = [row for row in ROWS.values() if not arguments.only or row.name.startswith(tuple(arguments.only))]
    if not rows:
        raise SystemExit(f"There is no such row; there are {', '.join(ROWS)}.")
    for name in {row.data for row in rows}:
        load(name, arguments.data_dir)  # whoever has no data hears it now
    if arguments.select:
        selected = [select(row, arguments, console) for row in rows if row.grid]
        print(json.dumps({"benchmark": "learning, settings", "rows": selected, "machine": machine()}))
        return 0
    jobs: list[Job] = [
        (row.name, seed, dict(row.settings), False, arguments.data_dir)
        for seed in range(arguments.seeds)
        for row in rows
    ]
    found: dict[str, dict[int, Figures]] = {row.name: {} for row in rows}
    for job, figures in measured(jobs, arguments.processes, console):
        found[job[0]][job[1]] = figures
    summaries = {row.name: summary(row, found[row.name]) for row in rows}
    table(summaries, console)
    held = all(row["holds"] is not False for row in summaries.values())
    print(json.dumps({"benchmark": "learning", "rows": summaries, "holds": held, "machine": machine()}))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
