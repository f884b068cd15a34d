"""What a batch costs, fitted while serving: seconds(n) = a + b·n.

Kept by the Batcher, one for each model; tells a refused client when to come back, and which batches are so small
that a thread of their own would cost more than they do.
"""

SELDOM = 16
"""Of as many batches that are over in a blink one is measured, once the cost is known."""

KNOWN = 64  # batches

FADING = 0.98
"""Weight of all that was seen before beside the newest batch: the fit follows some fifty batches."""


class BatchCost:
    """Weighted least squares over (items, seconds) with fading weights; no point is kept."""

    def __init__(self) -> None:
        self._weight = 0.0
        self._items = 0.0
        self._seconds = 0.0
        self._items_items = 0.0
        self._items_seconds = 0.0
        self.batches = 0
        self._asked = 0

    def is_due(self) -> bool:
        """Say whether to measure the next batch of a model whose batches cost little more than the measuring."""
        self._asked += 1
        return self.batches < KNOWN or self._asked % SELDOM == 0

    def note(self, items: int, seconds: float) -> None:
        """Take in that a batch of so many items took so long."""
        self.batches += 1
        self._weight = FADING * self._weight + 1
        self._items = FADING * self._items + items
        self._seconds = FADING * self._seconds + seconds
        self._items_items = FADING * self._items_items + items * items
        self._items_seconds = FADING * self._items_seconds + items * seconds

    def line(self) -> tuple[float, float]:
        """Give (a, b), neither negative; (0, 0) before the first batch.

        b = cov(n, s) / var(n); with one size alone the cost is taken as proportional to it.
        """
        if self._weight == 0:
            return 0.0, 0.0
        items, seconds = self._items / self._weight, self._seconds / self._weight
        spread = self._items_items / self._weight - items * items
        if spread < 1e-9:
            return 0.0, seconds / items
        each = (self._items_seconds / self._weight - items * seconds) / spread
        each = min(max(each, 0.0), seconds / items)
        return seconds - each * items, each

    def seconds(self, items: int) -> float:
        """Say what a batch of so many items would take."""
        fixed, each = self.line()
        return fixed + each * items
