"""Which remembered samples join each batch: class-balanced draws without end.

Called by the learner. What is in the memory is decided elsewhere; here every class present has the same share of the
draws, and within a class every sample comes once before any comes twice.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor


class Rehearsal:
    """Draws sample indices, the classes taking turns in a shuffled order."""

    def __init__(self, indices: Sequence[int], targets: Tensor, generator: torch.Generator) -> None:
        """Draw from `indices`; `targets` (samples,) are the rows of the head of all samples."""
        members: dict[int, list[int]] = defaultdict(list)
        for index in indices:
            members[int(targets[index])].append(index)
        self._members = [members[target] for target in sorted(members)]
        self._generator = generator
        self._turns: list[int] = []
        self._left: list[list[int]] = [[] for _ in self._members]

    def __len__(self) -> int:
        return sum(len(members) for members in self._members)

    def draw(self, count: int) -> list[int]:
        """Draw `count` indices; none when there is nothing to rehearse."""
        return [self._next() for _ in range(count)] if self._members else []

    def _next(self) -> int:
        if not self._turns:
            self._turns = torch.randperm(len(self._members), generator=self._generator).tolist()
        turn = self._turns.pop()
        if not self._left[turn]:
            members = self._members[turn]
            order = torch.randperm(len(members), generator=self._generator).tolist()
            self._left[turn] = [members[position] for position in order]
        return self._left[turn].pop()
