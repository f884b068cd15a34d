"""One pass over a labelled set: what is in it, what stands in it twice, and what cannot be used.

Each payload is read once and let go; a digest and a fingerprint stay.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.cli.importing.duplicates import Grid, NearPictures
from app.cli.importing.picture import Look, look
from app.cli.importing.source import Source, Unreadable
from app.errors import Invalid

SPREAD_ROWS = 1000  # vectors that show how their numbers spread
SIZES = (32, 64, 96, 128, 224)  # of pictures, when the set has them in several


@dataclass(frozen=True, slots=True)
class Item:
    """A sample to post: where its payload is read, and its own id at the server."""

    index: int
    label: str
    client_id: str
    test: bool = False


@dataclass
class Survey:
    """What the pass found."""

    kind: str
    train: list[Item] = field(default_factory=list)
    test: list[Item] = field(default_factory=list)
    read: int = 0
    exact: int = 0  # stood in the set before, with the same label
    near: int = 0
    leaked: int = 0  # stand in the test set too
    conflicts: list[str] = field(default_factory=list)  # the same content under several labels, in words
    conflicting: int = 0  # samples left out for it
    unreadable: list[str] = field(default_factory=list)
    input: dict[str, Any] = field(default_factory=dict)  # of a model that would fit

    @property
    def per_class(self) -> dict[str, int]:
        """How many samples of each class there are to learn, by the class's name."""
        return dict(sorted(Counter(item.label for item in self.train).items()))

    @property
    def digest(self) -> str:
        """Names what is posted: the same set gives the same digest wherever it lies."""
        ids = sorted(item.client_id for item in (*self.train, *self.test))
        return hashlib.sha256("\n".join(ids).encode()).hexdigest()


@dataclass(slots=True)
class _Seen:
    index: int
    label: str
    digest: bytes
    cell: bytes = b""  # of a vector
    bits: int = 0  # of a picture
    thumb: bytes = b""


class Surveyor:
    """Makes the pass. `near_bits` is how many bits two pictures' hashes may differ by to be alike."""

    def __init__(
        self,
        *,
        source_name: str,
        keep_duplicates: bool = False,
        near_bits: int = 4,
        on_read: Callable[[int], object],
    ) -> None:
        self._source_name = source_name
        self._keep_duplicates = keep_duplicates
        self._near_bits = near_bits
        self._on_read = on_read
        self._passed = 0
        self._sides: Counter[int] = Counter()
        self._colour = False
        self._width: int | None = None

    def survey(self, train: Source, test: Source | None) -> Survey:
        """Look at every sample. Raises Invalid where nothing is left to learn."""
        found = Survey(train.kind)
        grid = _grid(train)
        tested = [] if test is None else list(self._pass(test, None, found))
        seen = list(self._pass(train, grid, found))
        labels: dict[bytes, set[str]] = defaultdict(set)
        for one in (*seen, *tested):
            labels[one.digest].add(one.label)
        self._tell_conflicts(labels, {one.digest: train.place(one.index) for one in reversed(seen)}, found)
        in_test = {one.digest for one in tested}
        found.test = self._items((one for one in tested if len(labels[one.digest]) == 1), found, "test")
        found.train = self._items(self._kept(seen, labels, in_test, found), found, "train")
        if not found.train:
            why = found.unreadable[0] if found.unreadable else "everything in it contradicts itself"
            raise Invalid(f"Nothing of the set can be learned: {why}.")
        found.input = self._input(found.kind)
        return found

    def _pass(self, source: Source, grid: Grid | None, found: Survey) -> Iterator[_Seen]:
        for index in range(len(source)):
            self._on_read(self._passed)
            self._passed += 1
            try:
                yield self._seen(index, source, grid)
                found.read += 1
            except Unreadable as error:
                found.unreadable.append(f"{source.place(index)}: {error}")

    def _seen(self, index: int, source: Source, grid: Grid | None) -> _Seen:
        label = source.label(index)
        if not label.strip():
            raise Unreadable("it has no label")
        content = source.read(index)
        digest = hashlib.sha256(content).digest()
        if source.kind == "image":
            seen: Look = look(content)
            self._sides[seen.side] += 1
            self._colour = self._colour or not seen.grey
            return _Seen(index, label, digest, bits=seen.bits, thumb=seen.thumb)
        row = np.frombuffer(content, "<f8")
        if self._width is None:
            self._width = len(row)
        if len(row) != self._width:
            raise Unreadable(f"expected {self._width} numbers, got {len(row)}")
        return _Seen(index, label, digest, b"" if grid is None else grid.cell(row))

    def _kept(
        self, seen: list[_Seen], labels: dict[bytes, set[str]], in_test: set[bytes], found: Survey
    ) -> Iterator[_Seen]:
        """Leave out what contradicts itself, what would be tested with, and what is there already."""
        kept: set[bytes] = set()
        cells: set[tuple[str, bytes]] = set()
        pictures: dict[str, NearPictures] = defaultdict(lambda: NearPictures(self._near_bits))
        for one in seen:
            if len(labels[one.digest]) > 1:
                found.conflicting += 1
            elif one.digest in in_test:
                found.leaked += 1
            elif self._keep_duplicates:
                yield one
            elif one.digest in kept:
                found.exact += 1
            else:
                kept.add(one.digest)
                if one.thumb:
                    new = pictures[one.label].add(one.bits, one.thumb)
                else:
                    new = (one.label, one.cell) not in cells
                    cells.add((one.label, one.cell))
                if new:
                    yield one
                else:
                    found.near += 1

    def _items(self, seen: Iterator[_Seen], found: Survey, split: str) -> list[Item]:
        """Give each its id: the same for the same content, label, source and split, however often it is read.

        What stands there several times, and may, is counted, so that each has an id of its own.
        """
        again: Counter[tuple[bytes, str]] = Counter()
        items = []
        for one in seen:
            again[one.digest, one.label] += 1
            words = (self._source_name, split, str(again[one.digest, one.label]), one.label)
            name = hashlib.sha256(one.digest + "\0".join(words).encode()).hexdigest()
            items.append(Item(one.index, one.label, f"import-{name[:40]}", split == "test"))
        return items

    def _tell_conflicts(self, labels: dict[bytes, set[str]], places: dict[bytes, str], found: Survey) -> None:
        for digest, names in labels.items():
            if len(names) > 1:
                where = places.get(digest, "the test set")
                found.conflicts.append(f"{where}: the same content is labelled {' and '.join(sorted(names))}")

    def _input(self, kind: str) -> dict[str, Any]:
        if kind == "features":
            return {"kind": "features", "size": self._width}
        sides = sorted(self._sides.elements())
        middle = sides[len(sides) // 2]
        size = middle if len(self._sides) == 1 else max((one for one in SIZES if one <= middle), default=SIZES[0])
        return {"kind": "image", "size": min(max(size, 4), SIZES[-1]), "channels": 3 if self._colour else 1}


def _grid(source: Source) -> Grid | None:
    """See how the numbers of vectors spread, by rows from all over the set."""
    if source.kind == "image":
        return None
    rows = []
    for index in np.linspace(0, len(source) - 1, min(len(source), SPREAD_ROWS)).astype(int):
        try:
            rows.append(np.frombuffer(source.read(int(index)), "<f8"))
        except Unreadable:
            continue
    if not rows:
        raise Invalid(f"None of the rows that were tried can be read; the first is {source.place(0)}.")
    return Grid(np.stack(rows))
