"""What every benchmark shares: a service of its own in a fresh folder, and one form for its findings."""

import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.cli.instance import Instance


@contextmanager
def service(settings: Mapping[str, str] | None = None) -> Iterator[Instance]:
    """A real server and worker under `perennial up`, over an empty SQLite folder that is removed afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder,
        Instance(Path(folder) / "data", settings=settings) as instance,
    ):
        yield instance


def machine() -> dict[str, Any]:
    """What a figure has to be read beside."""
    processor = platform.processor()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    load = os.getloadavg()[0]
    return {"processor": processor, "cores": cores, "load": round(load, 2), "python": platform.python_version()}


def report(name: str, found: dict[str, Any], *, held: bool) -> int:
    """Print a table for people (stderr) and one JSON object for machines (stdout); the exit code is the answer."""
    grid = Table("figure", "value", title=name, title_justify="left")
    for figure, value in found.items():
        grid.add_row(figure, str(value))
    grid.add_row("holds", "yes" if held else "no")
    Console(stderr=True).print(grid)
    print(json.dumps({"benchmark": name, **found, "holds": held, "machine": machine()}))
    return 0 if held else 1
