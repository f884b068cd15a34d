"""A CSV or TSV file with a heading: a column of labels, and columns of numbers or one of paths to pictures.

Rows are found again by their place in the file, so that none needs to be kept.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from app.cli.importing.folder import read_picture
from app.cli.importing.source import Kind, Unreadable
from app.errors import Invalid

LABELS = ("label", "class", "target", "y")  # taken when no column is named
DELIMITERS = "\t,;|"


class Table:
    """Rows of a file in UTF-8. Paths to pictures are meant from the folder of the file."""

    def __init__(
        self,
        file: Path,
        label_column: str | None = None,
        image_column: str | None = None,
        ignored: Sequence[str] = (),
    ) -> None:
        self._file = file
        self._starts: list[int] = []
        self._lines: list[int] = []
        self._labels: list[str] = []
        self._open = file.open("rb")
        try:
            self._read_heading(label_column, image_column, ignored)
            self._find_rows()
        except Invalid:
            self._open.close()
            raise

    def _read_heading(self, label_column: str | None, image_column: str | None, ignored: Sequence[str]) -> None:
        first = self._open.readline().decode("utf-8-sig", errors="replace")
        self._delimiter = max(DELIMITERS, key=first.count)
        heading = next(csv.reader([first], delimiter=self._delimiter), [])
        self._width = len(heading)
        self._label = _column(heading, label_column or _guessed(heading), self._file)
        self._image = None if image_column is None else _column(heading, image_column, self._file)
        self.kind: Kind = "features" if image_column is None else "image"
        left_out = {_column(heading, name, self._file) for name in ignored} | {self._label}
        self._numbers = [(place, name) for place, name in enumerate(heading) if place not in left_out]
        if self.kind == "features" and not self._numbers:
            raise Invalid(f"{str(self._file)!r} has no column of numbers beside the label.")

    def _find_rows(self) -> None:
        known: dict[str, str] = {}
        for start, line, row in self._rows():
            if row:
                name = row[self._label].strip() if len(row) > self._label else ""
                self._starts.append(start)
                self._lines.append(line)
                self._labels.append(known.setdefault(name, name))
        if not self._labels:
            raise Invalid(f"{str(self._file)!r} has a heading and no rows.")

    def __len__(self) -> int:
        return len(self._labels)

    def label(self, index: int) -> str:
        return self._labels[index]

    def place(self, index: int) -> str:
        return f"line {self._lines[index]}"

    def read(self, index: int) -> bytes:
        self._open.seek(self._starts[index])
        row = next(csv.reader((_text(line) for line in self._open), delimiter=self._delimiter))
        if len(row) != self._width:
            raise Unreadable(f"expected {self._width} columns, got {len(row)}")
        if self._image is not None:
            return read_picture(self._file.parent / row[self._image])
        return np.array([_number(row[place], name) for place, name in self._numbers], "<f8").tobytes()

    def close(self) -> None:
        self._open.close()

    def _rows(self) -> Iterator[tuple[int, int, list[str]]]:
        """Each row after the heading: the byte and the line at which it begins (from 1), its cells."""
        read = 1

        def lines() -> Iterator[str]:
            nonlocal read
            while line := self._open.readline():
                read += 1
                yield _text(line)

        rows = csv.reader(lines(), delimiter=self._delimiter)
        while True:
            start, line = self._open.tell(), read + 1  # the reader asks for no line beyond its row
            try:
                row = next(rows, None)
            except csv.Error as error:
                raise Invalid(f"{str(self._file)!r}, line {line}: {error}.") from error
            if row is None:
                return
            yield start, line, row


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="replace")


def _number(cell: str, column: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        what = "is empty" if not cell.strip() else f"holds {cell[:40]!r}, which is no number"
        raise Unreadable(f"column {column!r} {what}") from None
    if not math.isfinite(value):
        raise Unreadable(f"column {column!r} holds {cell!r}, which is no finite number")
    return value


def _guessed(heading: Sequence[str]) -> str:
    for name in heading:
        if name.strip().lower() in LABELS:
            return name
    raise Invalid(f"Which column holds the label? Name it with --label-column; there are {', '.join(heading)}.")


def _column(heading: Sequence[str], name: str, file: Path) -> int:
    stripped = [one.strip() for one in heading]
    if name.strip() not in stripped:
        raise Invalid(f"{str(file)!r} has no column {name!r}; there are {', '.join(heading)}.")
    return stripped.index(name.strip())
