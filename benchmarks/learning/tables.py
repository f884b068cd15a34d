"""Streams of tabular rows in the order in which they came, read out of their gzipped files.

Called by `streams.py` and by `forest.py`, which runs under an interpreter without the product or torch.
"""

import csv
import gzip
from pathlib import Path

STREAMS = ("elec2", "ne_weather", "outdoor")


def read(name: str, folder: Path) -> tuple[list[list[float]], list[int]]:
    """Rows of numbers and their labels; raises SystemExit that says what is missing."""
    try:
        if name == "outdoor":
            with (
                gzip.open(folder / "outdoor.data.gz", "rt") as data,
                gzip.open(folder / "outdoor.labels.gz", "rt") as of,
            ):
                return [[float(value) for value in line.split()] for line in data], [int(float(line)) for line in of]
        with gzip.open(folder / f"{name}.csv.gz", "rt") as data:
            _, *rows = csv.reader(data)
        return [[float(value) for value in row[:-1]] for row in rows], [int(float(row[-1])) for row in rows]
    except FileNotFoundError as error:
        raise SystemExit(f"{error.filename} is not there. Name the folder of the streams with --data-dir.") from error
