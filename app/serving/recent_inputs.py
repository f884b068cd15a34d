"""What was asked of a model lately: real inputs and real batch sizes, for a new version to be warmed up with.

The batcher notes each batch, the loading thread reads. Kept in memory only, and little of it.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from torch import Tensor

ITEMS = 8
BATCHES = 256
EVERY_SECONDS = 0.1


class RecentInputs:
    """The last decoded items, and the sizes of the last batches. Safe to call from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_at = -math.inf
        self._items: deque[Tensor] = deque(maxlen=ITEMS)
        self._sizes: deque[int] = deque(maxlen=BATCHES)

    def note(self, items: Sequence[Tensor]) -> None:
        """Remember one batch of decoded items by its size and a copy of its last, which may be a row of a block.

        Copies are made a few times a second: they are to be recent, not complete.
        """
        if not items:
            return
        self._sizes.append(len(items))
        now = self._clock()
        if len(self._items) < ITEMS or now >= self._next_at:
            self._next_at = now + EVERY_SECONDS
            self._items.append(items[-1].clone())

    def items(self) -> tuple[Tensor, ...]:
        """Give the items, the latest last."""
        return tuple(self._items)

    def sizes(self, most: int) -> list[int]:
        """Give the batch sizes in use, smallest first: the largest, and of the others the most frequent."""
        counted = Counter(tuple(self._sizes))
        if not counted:
            return []
        largest = max(counted)
        frequent = [size for size, _ in counted.most_common() if size != largest]
        return sorted([largest, *frequent[: most - 1]])
