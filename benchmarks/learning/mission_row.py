"""What the rows of the mission's recipes share: what was found, whether it holds, one form for both.

A table for people on stderr, one JSON object on stdout, and the exit code is the answer.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.log import configure


@dataclass
class Row:
    """One row while it is measured."""

    folder: Path  # of the data
    cache: Path | None = None  # where features stay from run to run
    recipe: Any = None  # in the place of the row's own, as JSON
    seeds: int = 1
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    holds: dict[str, bool] = field(default_factory=dict)

    def found(self, title: str, **figures: Any) -> None:
        self.figures[title] = figures
        print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in figures.items()), file=sys.stderr)

    def must(self, what: str, held: bool) -> None:
        self.holds[what] = held
        print(f"{'holds' if held else 'DOES NOT HOLD'}: {what}", file=sys.stderr)


def run(name: str, measure: Callable[[Row], None], folder: Path, seeds: int = 1) -> int:
    """Measure a row and print it; the exit code. `seeds`: how many the row draws by itself, if it draws several."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, default=folder)
    parser.add_argument("--cache", type=Path, help="keep offline features in this folder from run to run")
    parser.add_argument("--recipe", type=json.loads, help="in the place of the row's own, as JSON")
    parser.set_defaults(seeds=seeds)
    if seeds > 1:
        parser.add_argument("--seeds", type=int)
    arguments = parser.parse_args()
    configure("WARNING")  # to stderr; stdout is for the figures
    row = Row(arguments.data_dir, arguments.cache, arguments.recipe, arguments.seeds)
    started, spent = time.monotonic(), time.process_time()
    measure(row)
    seconds = {"seconds": round(time.monotonic() - started, 1), "cpu seconds": round(time.process_time() - spent, 1)}
    machine = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    print(json.dumps({"benchmark": name, "rows": row.figures, "holds": row.holds, **seconds, "machine": machine}))
    return 0 if all(row.holds.values()) else 1
