"""Whether predictions are being computed on this host: a word that servers leave in memory which workers share.

Made by both composition roots over one file of the data folder. Servers write at every request, workers read between
two operations: there is no call to the system in either. Where they share no data folder, nobody says anything.
"""

import mmap
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from app.log import get_logger

log = get_logger(__name__)

FILE = "traffic"
PLACES = 64  # one for each serving process, chosen by lot: two that share one only tell less
SIZE = 2 * PLACES * 8  # bytes
BELIEVED_NS = 1_000_000_000
"""How long a word holds: that of a killed server lapses, and a request in work renews it only as others arrive."""


class Traffic:
    """How many requests each serving process has in work, and when it said so last, in nanoseconds."""

    def __init__(self, folder: Path, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Share the words in a file of this folder. The clock must be one that all processes of the host share."""
        self._clock = clock
        self._words = memoryview(_shared(folder / FILE)).cast("q")
        self._counts, self._moments = self._words[:PLACES], self._words[PLACES:]
        self._mine = secrets.randbelow(PLACES)

    def tell(self, in_work: int) -> None:
        """Say how many requests are in work; called whenever one comes or is answered."""
        self._counts[self._mine] = in_work
        self._moments[self._mine] = self._clock()

    @property
    def in_work(self) -> int:
        """How many requests the servers of this host have in work."""
        told = [(place, count) for place, count in enumerate(self._counts.tolist()) if count]
        if not told:
            return 0
        now = self._clock()
        # A later moment is of another boot's clock.
        return sum(count for place, count in told if now - BELIEVED_NS < self._moments[place] <= now)

    @property
    def recent(self) -> bool:
        """Whether some server had a request within the last second."""
        now = self._clock()
        return any(now - BELIEVED_NS < moment <= now for moment in self._moments)


def _shared(path: Path) -> mmap.mmap:
    """Map the file, made where it is missing; memory of our own, in which nobody else reads, where it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        log.warning("the worker is not told of predictions", file=str(path), error=str(error))
        return mmap.mmap(-1, SIZE)
    try:
        os.ftruncate(file, SIZE)
        return mmap.mmap(file, SIZE)
    finally:
        os.close(file)
