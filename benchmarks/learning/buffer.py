"""A memory of so many samples, filled from a stream whose end nobody knows.

Called by the protocols; the product's own memory is a matter of keyed hashes in its database. Pictures stay bytes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Remembered:
    inputs: Tensor  # (n, 784) bytes
    targets: Tensor  # (n,)
    logits: Tensor | None  # (n, classes), as they were when the sample came in


class Buffer:
    """At most `capacity` samples.

    Not `balanced`: each sample of the stream is in it with the same chance (reservoir; Vitter 1985). `balanced`: a
    sample of a class that has fewer than the fullest class takes a place of the fullest one; within a class each has
    the same chance (class-balanced reservoir; Chrysakis and Moens 2020).
    """

    def __init__(self, capacity: int, generator: torch.Generator, *, balanced: bool = False, classes: int = 10) -> None:
        self.capacity, self.balanced, self._generator = capacity, balanced, generator
        self._inputs = torch.zeros(0)
        self._targets = torch.full((capacity,), -1)
        self._logits = torch.zeros(capacity, classes)
        self._held: list[list[int]] = [[] for _ in range(classes)]  # slots of each class
        self._came = [0] * classes
        self._with_logits = False
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def add(self, inputs: Tensor, targets: Tensor, logits: Tensor | None = None) -> None:
        """Offer a batch, bytes (n, …) and classes (n,), one by one in its order."""
        if not len(self._inputs):
            self._inputs = torch.zeros(self.capacity, *inputs.shape[1:], dtype=inputs.dtype)
        self._with_logits = logits is not None
        slots = [self._slot(target) for target in targets.tolist()]
        # A slot given away twice within a batch belongs to the last: earlier rows must not overwrite it.
        last = {slot: row for row, slot in enumerate(slots) if slot is not None}
        if not last:
            return
        where, rows = torch.tensor(list(last)), torch.tensor(list(last.values()))
        self._inputs[where] = inputs[rows]
        self._targets[where] = targets[rows]
        if logits is not None:
            self._logits[where] = logits[rows]

    def draw(self, count: int) -> Remembered:
        """Take up to `count` different samples, each with the same chance."""
        return self._at(torch.randperm(self.size, generator=self._generator)[:count])

    def everything(self) -> Remembered:
        return self._at(torch.arange(self.size))

    def counts(self) -> list[int]:
        """How many samples of each class it holds."""
        return [len(slots) for slots in self._held]

    def _at(self, rows: Tensor) -> Remembered:
        logits = self._logits[rows] if self._with_logits else None
        return Remembered(self._inputs[rows], self._targets[rows], logits)

    def _slot(self, target: int) -> int | None:
        self._came[target] += 1
        if self.size < self.capacity:
            self.size += 1
            self._held[target].append(self.size - 1)
            return self.size - 1
        slot = self._balanced_slot(target) if self.balanced else self._random(sum(self._came))
        if slot is None or slot >= self.capacity:
            return None
        for slots in self._held:
            if slot in slots:
                slots.remove(slot)
        self._held[target].append(slot)
        return slot

    def _balanced_slot(self, target: int) -> int | None:
        mine = self._held[target]
        fullest = max(self._held, key=len)
        if len(mine) < len(fullest):
            return fullest[self._random(len(fullest))]
        place = self._random(self._came[target])
        return mine[place] if place < len(mine) else None

    def _random(self, below: int) -> int:
        return int(torch.randint(below, (1,), generator=self._generator))
