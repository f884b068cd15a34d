"""When the garbage collector looks through everything: while nobody waits, instead of whenever it likes.

Python holds all threads while it looks. The libraries alone are hundreds of thousands of objects, and a busy server
makes it look every few seconds: measured as a quarter of a second each time, for every request at hand.
Started by the composition root. Knows nothing of what is served.
"""

import gc
import time
from collections.abc import Callable

OFTEN_SECONDS = 60.0  # between two looks while nobody waits
LATE_SECONDS = 600.0  # after so long it looks even though somebody waits
YOUNG = (10_000, 20, 1_000_000)  # young objects are looked through as they come, old ones never by themselves
PILED = 3  # times 10,000 young ones that stayed: looked through while nobody waits, not when there are 20


class Tidying:
    """Takes over the collector of the process while it is on."""

    def __init__(self, busy: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        """`busy` says whether a request is in work, or is likely to come within a tenth of a second."""
        self._busy = busy
        self._clock = clock
        self._before = gc.get_threshold()
        self._looked = 0.0

    def start(self) -> None:
        """Put what is there now out of sight: it is the libraries, and stays."""
        self._before = gc.get_threshold()
        gc.freeze()
        gc.set_threshold(*YOUNG)
        self._looked = self._clock()

    def look(self) -> bool:
        """Look through everything if it is time and nobody waits, or if it is late; say whether it was done.

        Else, while nobody waits, through those of the young that have piled up: a first prediction has libraries
        loaded, whose objects are looked at once like this, and are old from then on.
        """
        since = self._clock() - self._looked
        busy = self._busy()
        if since < OFTEN_SECONDS or (since < LATE_SECONDS and busy):
            if not busy and gc.get_count()[1] >= PILED:
                gc.collect(1)
            return False
        gc.collect()
        self._looked = self._clock()
        return True

    def stop(self) -> None:
        """Leave the collector as it was."""
        gc.set_threshold(*self._before)
        gc.unfreeze()
