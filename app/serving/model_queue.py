"""The requests of one model that wait for a forward pass, first come first served.

Owned by the Batcher, which holds its lock around every call. Knows nothing of threads or of what a pass does.
"""

from collections import deque
from typing import Any

from app.batching import Batching
from app.serving.ask import Ask, Part
from app.serving.batch_cost import BatchCost


class ModelQueue:
    """Parts in the order in which they came, and what batches of them have cost."""

    def __init__(self, name: str, batching: Batching, inflight_limit: int) -> None:
        self.name = name
        self.batching = batching
        self.cost = BatchCost()
        self.on_loop = False  # whether it is answered on the event loop
        self._inflight_limit = inflight_limit
        self.inflight = 0  # items that wait or are in work; on the event loop only
        self._parts: deque[Part[Any]] = deque()
        self._items = 0

    def __len__(self) -> int:
        """How many items wait, ready for a pass."""
        return self._items

    def has_room(self, more: int) -> bool:
        """Whether so many items more may be taken; any number may while nothing waits."""
        limit = self.batching.queue_items or self._inflight_limit
        return self.inflight == 0 or self.inflight + more <= limit

    def put(self, part: Part[Any]) -> None:
        self._parts.append(part)
        self._items += len(part)

    def drop(self, ask: Ask[Any]) -> None:
        """Let go of what waits of a request that nobody waits for any more."""
        kept = [part for part in self._parts if part.ask is not ask]
        self._items -= sum(map(len, self._parts)) - sum(map(len, kept))
        self._parts = deque(kept)

    def due_at(self) -> float | None:
        """When the next batch may start, by `time.perf_counter`; None while nothing waits.

        At once, unless a window is set and the batch is not full: it ends so long after the oldest came.
        """
        if not self._parts:
            return None
        if self.batching.window_ms == 0 or self._items >= self.batching.max_items:
            return 0.0
        return self._parts[0].ask.arrived + self.batching.window_ms / 1000

    def take(self, most: int | None = None) -> list[Part[Any]]:
        """Take the next batch out: parts of one key from the front, at most `max_items` (or `most`) items.

        A first part that is larger than that is a batch of its own.
        """
        if not self._parts:
            return []
        room = most or self.batching.max_items
        key = self._parts[0].ask.predictor.key
        batch: list[Part[Any]] = []
        while self._parts and self._parts[0].ask.predictor.key == key:
            size = len(self._parts[0])
            if batch and size > room:
                break
            batch.append(self._parts.popleft())
            self._items -= size
            room -= size
        return batch

    def retry_after_seconds(self, more: int) -> float:
        """Estimate when so many items more would be done: the passes before them by the fitted cost."""
        items = self.inflight + more
        fixed, each = self.cost.line()
        passes = -(-items // self.batching.max_items)
        return passes * fixed + items * each
