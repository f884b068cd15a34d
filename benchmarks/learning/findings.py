"""How the benchmarks of heads print what they found: a table for people on stderr, one JSON object on stdout."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


class Spread(dict[str, Any]):
    """What several seeds gave: mean, standard deviation of a sample and the values in their order."""

    def __init__(self, values: Sequence[float]) -> None:
        self.mean = statistics.fmean(values)
        self.std = statistics.stdev(values) if len(values) > 1 else 0.0
        super().__init__(mean=round(self.mean, 3), std=round(self.std, 3), values=list(values))

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.std:.2g}" if self.std else f"{self.mean:.4g}"


def over_seeds(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Join runs whose rows have the same meaning: numbers become spreads, words stay, or stand side by side."""
    return [
        {name: _joined([row[name] for row in together]) for name in together[0]} for together in zip(*runs, strict=True)
    ]


def _joined(values: Sequence[Any]) -> Any:
    if all(isinstance(value, float) for value in values):
        return Spread(values)
    return " / ".join(dict.fromkeys(map(str, values)))


def show(name: str, rows: Sequence[Mapping[str, Any]], *, held: bool, **notes: Any) -> int:
    """Print rows that have the same keys; give the exit code, which is the answer."""
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 160)
    grid = Table(*rows[0], title=name, title_justify="left")
    for row in rows:
        grid.add_row(*(str(value) for value in row.values()))
    console.print(grid)
    for note, value in notes.items():
        console.print(f"{note.replace('_', ' ')}: {value}")
    console.print("holds: " + ("yes" if held else "no"))
    machine = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "python": platform.python_version()}
    print(json.dumps({"benchmark": name, "rows": rows, **notes, "holds": held, "machine": machine}))
    return 0 if held else 1
