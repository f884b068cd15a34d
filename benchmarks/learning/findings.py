"""How the benchmarks of heads print what they found: a table for people on stderr, one JSON object on stdout."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


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
