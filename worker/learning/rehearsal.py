"""Which remembered samples join each batch: class-balanced draws without end.

Called by the learner. What is in the memory is decided elsewhere; here every class present has the same share of the
draws, and within a class every sample comes once before any comes twice.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

_AHEAD = 256  # turns that are shuffled at a time


class Rehearsal:
    """Draws sample indices, the classes taking turns in a shuffled order."""

    def __init__(self, indices: Sequence[int], targets: Tensor, generator: torch.Generator) -> None:
        """Draw from `indices`; `targets` (samples,) are the rows of the head of all samples."""
        members: dict[int, list[int]] = defaultdict(list)
        rows = targets.tolist()
        for index in indices:
            members[rows[index]].append(index)
        self._members = [members[target] for target in sorted(members)]
        self._generator = generator
        self._turns: list[int] = []
        self._left: list[list[int]] = [[] for _ in self._members]

    def __len__(self) -> int:
        return sum(len(members) for members in self._members)

    def draw(self, count: int) -> list[int]:
        """Draw `count` indices; none when there is nothing to rehearse."""
        if not self._members:
            return []
        if len(self._turns) < count:
            self._turns += self._rounds(count - len(self._turns))
        turns, self._turns = self._turns[:count], self._turns[count:]
        return [self._of_class(turn) for turn in turns]

    def _rounds(self, least: int) -> list[int]:
        """Turns of whole rounds, each in an order of its own; enough for some draws, since one alone costs as much."""
        rounds = math.ceil(max(least, _AHEAD) / len(self._members))
        turns: list[int] = (
            torch.rand(rounds, len(self._members), generator=self._generator).argsort(1).flatten().tolist()
        )
        return turns

    def _of_class(self, turn: int) -> int:
        left = self._left[turn]
        if not left:
            members = self._members[turn]
            left += [members[place] for place in torch.randperm(len(members), generator=self._generator).tolist()]
        return left.pop()
