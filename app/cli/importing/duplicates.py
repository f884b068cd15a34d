"""Near-duplicates: what is so like a sample kept before, of the same class, that it teaches nothing new."""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from app.cli.importing.picture import THUMB_BYTES

HASH_BITS = 64
LOOKED_AT = 4096  # members of a bucket that are compared at most, so that a set of alike pictures stays linear
THUMB_DIFFERENCE = 3.0
"""Mean difference of 256 steps a channel up to which two small copies are alike. The bits alone know only edges:
of Fashion-MNIST's trousers they would take two thirds for one another."""


class NearPictures:
    """Pictures of one class, by difference hash and a tiny copy.

    Two hashes at most `distance` bits apart agree in at least one of `distance` + 1 bands whole (pigeonhole), so only
    pictures that share a band are compared.
    """

    def __init__(self, distance: int = 4) -> None:
        if not 0 <= distance <= 15:
            raise ValueError(f"expected a distance from 0 to 15 bits, got {distance}")
        self._distance = distance
        edges = [round(HASH_BITS * band / (distance + 1)) for band in range(distance + 2)]
        self._bands = [(low, (1 << (high - low)) - 1) for low, high in pairwise(edges)]
        self._buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._bits = np.empty(64, np.uint64)
        self._thumbs = np.empty((64, THUMB_BYTES), np.uint8)
        self._count = 0

    def add(self, bits: int, thumb: bytes) -> bool:
        """Keep a picture; False when one like it is kept already."""
        keys = [(band, bits >> low & mask) for band, (low, mask) in enumerate(self._bands)]
        alike = sorted({member for key in keys for member in self._buckets[key][-LOOKED_AT:]})
        own = np.frombuffer(thumb, np.uint8)
        if alike and self._any_near(np.array(alike), bits, own):
            return False
        if self._count == len(self._bits):
            self._bits = np.resize(self._bits, 2 * self._count)
            self._thumbs = np.resize(self._thumbs, (2 * self._count, THUMB_BYTES))
        self._bits[self._count] = bits
        self._thumbs[self._count] = own
        for key in keys:
            self._buckets[key].append(self._count)
        self._count += 1
        return True

    def _any_near(self, members: npt.NDArray[np.int64], bits: int, thumb: npt.NDArray[np.uint8]) -> bool:
        near = members[np.bitwise_count(self._bits[members] ^ np.uint64(bits)) <= self._distance]
        if not len(near):
            return False
        apart = np.abs(self._thumbs[near].astype(np.int16) - thumb.astype(np.int16)).mean(axis=1)
        return bool((apart <= THUMB_DIFFERENCE).any())


class Grid:
    """Vectors rounded to a fraction of each number's own spread: those in one cell are alike."""

    def __init__(self, rows: npt.NDArray[np.float64], fraction: float = 0.01) -> None:
        """`rows` (count, size) show how each number spreads."""
        with np.errstate(over="ignore", invalid="ignore"):
            spread = np.nan_to_num(rows.std(axis=0), posinf=0.0)
        self._cell = np.where(spread > 0, spread, 1.0) * fraction  # (size,)

    def cell(self, row: npt.NDArray[np.float64]) -> bytes:
        """Name the cell of a vector (size,)."""
        with np.errstate(over="ignore"):
            return (np.rint(row / self._cell) + 0.0).tobytes()  # + 0.0: there is no −0
