"""The factor of the last whole solve, from which a head is found for a small part of the price while few samples move.

Kept by the fast lane beside the sums. One label alone costs a pair of solutions of triangular systems, D²
multiplications, instead of a factor, D³/3. What it gives depends on the sums as they are, to rounding, not on the way
there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.learning.closed_form import (
    UNCALIBRATED,
    ClosedFormSettings,
    Solved,
    closed_form,
    discriminant,
    held,
    laid_out,
)
from worker.learning.increment import Dear, Then, directions_of, increment
from worker.learning.scatter import Discriminant, Linear, Scatter, inverted
from worker.learning.sums import Moved, Sums

_LEAST_WIDTH = 256  # below it a factor costs no more than the detour
_SHARE = 6  # of the width: D/6 solutions of a triangular system and its transpose cost as much as a factor
_MOST_GROWTH = 1e6  # of rounding errors, by samples that go: beyond it a factor is made anew


@dataclass
class _Kept:
    """A factor and what was solved with it."""

    settled: object
    settings: ClosedFormSettings
    strength: float
    then: Then
    factor: Tensor  # (width, width) upper triangular U, A = UᵀU
    directions: Tensor  # (directions at most, width), of the means first; those of labels that come follow
    solved: Tensor  # the same: A⁻¹ of them
    count: int = 0  # of the directions that are solved for
    known: tuple[Moved, ...] = ()  # whose directions stand after those of the labels

    @classmethod
    def of(cls, sums: Sums, settings: ClosedFormSettings, strength: float, scatter: Scatter, factor: Tensor) -> "_Kept":
        then = Then(sums.centres(), float(scatter.within.diagonal().mean()), scatter.energy)
        room = torch.empty(max(sums.width // _SHARE, len(scatter.means)), sums.width, dtype=torch.float64)
        room[: len(scatter.means)] = scatter.means - scatter.means.mean(0)
        return cls(sums.settled, settings, strength, then, factor, room, torch.empty_like(room))

    @property
    def nbytes(self) -> int:
        rows = len(self.then.centres.label_ids) + sum(len(moved.rows) for moved in self.known) + self.count
        return self.factor.nbytes + rows * self.factor[0].nbytes

    def follow(self, since: tuple[Moved, ...]) -> tuple[Tensor, Tensor]:
        """Give the directions, those of these samples last, and A⁻¹ of them; what is solved for already stays."""
        same = 0
        while same < min(len(self.known), len(since)) and self.known[same] is since[same]:
            same += 1
        rows = len(self.then.centres.label_ids) + sum(len(moved.rows) for moved in since[:same])
        solved = min(self.count, rows)
        for moved in since[same:]:
            self.directions[rows : rows + len(moved.rows)] = directions_of(self.then, moved)
            rows += len(moved.rows)
        if solved < rows:
            self.solved[solved:rows] = inverted(self.factor, self.directions[solved:rows])
        self.known, self.count = since, rows
        return self.directions[:rows], self.solved[:rows]


class KeptFactor:
    """Solves heads of sums, one after the other. For one thread."""

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    @property
    def nbytes(self) -> int:
        """Bytes in memory: of the factor, as many as the square takes, and of what was solved with it."""
        return self._kept.nbytes if self._kept is not None else 0

    def solve(
        self,
        sums: Sums,
        settings: ClosedFormSettings,
        label_ids: Sequence[int],
        *,
        strength: float | None = None,
        scale: float = UNCALIBRATED,
    ) -> Solved:
        """Give what `closed_form.solve` gives, to rounding. Raises LearningFailed as that does."""
        if not sums.samples:
            return laid_out(None, sums.width, label_ids, scale)
        return laid_out(self.linear(sums, settings, strength), sums.width, label_ids, scale)

    def linear(self, sums: Sums, settings: ClosedFormSettings, strength: float | None = None) -> Linear:
        """Give the head of all labels that have samples, in float64."""
        kept = self._kept
        if kept is not None and (kept.settled, kept.settings, kept.strength) == (
            sums.settled,
            settings,
            held(settings, strength),
        ):
            try:
                return self._later(kept, sums)
            except Dear:
                pass
        scatter, found = self.anew(sums, settings, strength)
        return Linear(scatter.label_ids, found.weight, found.bias)

    def anew(
        self, sums: Sums, settings: ClosedFormSettings, strength: float | None = None
    ) -> tuple[Scatter, Discriminant]:
        """Solve whole, and keep the factor for what comes next."""
        self._kept = None  # two at once would be twice the memory
        scatter = sums.scatter()
        found = discriminant(scatter, settings, strength)
        if sums.width >= _LEAST_WIDTH:
            self._kept = _Kept.of(sums, settings, held(settings, strength), scatter, found.factor)
        return scatter, found

    def _later(self, kept: _Kept, sums: Sums) -> Linear:
        since = sums.waiting
        few = sum(len(moved.rows) for moved in since)
        if (len(kept.then.centres.label_ids) + few) * _SHARE > sums.width:
            raise Dear
        directions, solved = kept.follow(since)

        def solve(change: Tensor, wanted: Tensor) -> Tensor:
            """X of (A + Bᵀ·change·B) Xᵀ = Bᵀ·wantedᵀ, B the directions.

            With Y = A⁻¹Bᵀ it is X = wanted (I + change·BY)⁻ᵀ Yᵀ: both sides multiplied by the bracket.
            """
            inner = torch.eye(len(solved), dtype=torch.float64) + change @ (directions @ solved.T)
            inverse, failed = torch.linalg.inv_ex(inner)
            if int(failed) or not float(torch.linalg.matrix_norm(inverse, 1)) < _MOST_GROWTH:
                raise Dear
            solution: Tensor = (inverse @ wanted.T).T @ solved
            return solution

        step = increment(kept.then, sums.centres(), since, directions)
        found = closed_form(kept.settings).later(step, kept.strength, kept.settings.balanced, solve)
        if not bool(found.weight.isfinite().all() and found.bias.isfinite().all()):
            raise Dear
        return found
