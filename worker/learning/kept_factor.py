"""The factor of the last whole solve, from which a head is found for a small part of the price while few samples move.

Kept by the fast lane beside the sums. One label alone costs a few solutions of triangular systems, D² multiplications
each, instead of a factor, D³/3. What it gives depends on the sums as they are, to rounding, not on the way there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
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
from worker.learning.increment import Then, directions_of, increment
from worker.learning.scatter import Discriminant, Linear, Scatter, inverted
from worker.learning.sums import Moved, Sums

_LEAST_WIDTH = 256  # below it a factor costs no more than the detour
_SHARE = 6  # of the width: D/6 solutions of a triangular system and its transpose cost as much as a factor
_EXACT = 1e-12
_MOST_TERMS = 10
_MOST_GROWTH = 1e6  # of rounding errors, by samples that go: beyond it a factor is made anew


class _Dear(Exception):
    """A new factor is cheaper or safer."""


@dataclass
class _Kept:
    """A factor and what was solved with it. Powers: A⁻¹b, A⁻²b, … of directions b, as many as were needed so far."""

    settled: object
    settings: ClosedFormSettings
    strength: float
    then: Then
    factor: Tensor  # (width, width) upper triangular U, A = UᵀU
    room: Tensor  # (directions at most, width), the directions first
    powers: Tensor  # (_MOST_TERMS, directions at most, width)
    solved: list[int] = field(default_factory=lambda: [0] * _MOST_TERMS)  # of how many directions each power is there
    known: tuple[Moved, ...] = ()  # whose directions stand after those of the labels

    @classmethod
    def of(cls, sums: Sums, settings: ClosedFormSettings, strength: float, scatter: Scatter, factor: Tensor) -> "_Kept":
        then = Then(sums.centres(), float(scatter.within.diagonal().mean()), scatter.energy)
        room = torch.empty(max(sums.width // _SHARE, len(scatter.means)), sums.width, dtype=torch.float64)
        room[: len(scatter.means)] = scatter.means - scatter.means.mean(0)
        return cls(sums.settled, settings, strength, then, factor, room, room.new_empty(_MOST_TERMS, *room.shape))

    @property
    def nbytes(self) -> int:
        rows = len(self.then.centres.label_ids) + sum(len(moved.rows) for moved in self.known) + sum(self.solved)
        return self.factor.nbytes + rows * self.factor[0].nbytes

    def follow(self, since: tuple[Moved, ...]) -> Tensor:
        """Give the directions, those of these samples last; what was solved for samples that are known stays."""
        same = 0
        while same < min(len(self.known), len(since)) and self.known[same] is since[same]:
            same += 1
        rows = len(self.then.centres.label_ids) + sum(len(moved.rows) for moved in since[:same])
        self.solved = [min(count, rows) for count in self.solved]
        for moved in since[same:]:
            self.room[rows : rows + len(moved.rows)] = directions_of(self.then, moved)
            rows += len(moved.rows)
        self.known = since
        return self.room[:rows]


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
            except _Dear:
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
        labels = len(kept.then.centres.label_ids)
        few = sum(len(moved.rows) for moved in since)
        if (labels + few) * _SHARE > sums.width:
            raise _Dear
        directions = kept.follow(since)
        step = increment(kept.then, sums.centres(), since, directions)

        def solve(change: Tensor, shift: float, wanted: Tensor, least: float) -> Tensor:
            """X of (A + Bᵀ·change·B + shift·I) Xᵀ = Bᵀ wantedᵀ, B the directions, `least` below A's eigenvalues.

            With Y = (A + shift·I)⁻¹Bᵀ it is X = wanted (I + change·BY)⁻ᵀ Yᵀ: both sides multiplied by the bracket.
            """
            y = self._shifted(kept, len(directions), shift, least)  # (directions, width)
            inner = torch.eye(len(y), dtype=torch.float64) + change @ (directions @ y.T)
            inverse, failed = torch.linalg.inv_ex(inner)
            if int(failed) or not float(torch.linalg.matrix_norm(inverse, 1)) < _MOST_GROWTH:
                raise _Dear
            solution: Tensor = (inverse @ wanted.T).T @ y
            return solution

        form = closed_form(kept.settings)
        found = form.later(step, kept.strength, kept.settings.balanced, solve)
        if not bool(found.weight.isfinite().all() and found.bias.isfinite().all()):
            raise _Dear
        return found

    def _shifted(self, kept: _Kept, count: int, shift: float, least: float) -> Tensor:
        """Give (A + shift·I)⁻¹b for all directions b: Σ q_j·shiftʲ·A⁻⁽ʲ⁺¹⁾b, Σ q_j tʲ what is nearest to 1/(1 + t).

        t stands for the eigenvalues of shift·A⁻¹, which lie between 0 and shift/least; the polynomial is that of
        Chebyshev's points there.
        """
        coefficients = _nearest(_rounded(shift / least))
        labels = len(kept.then.centres.label_ids)
        missing = sum(count - max(labels, rows) for rows in kept.solved[: len(coefficients)])
        if missing * _SHARE > kept.factor.shape[0]:
            raise _Dear
        before = kept.room
        for number in range(len(coefficients)):
            there, power = kept.solved[number], kept.powers[number]
            if there < count:
                power[there:count] = inverted(kept.factor, before[there:count])
                kept.solved[number] = count
            before = power
        scaled = torch.tensor([value * shift**number for number, value in enumerate(coefficients)], dtype=torch.float64)
        terms = kept.powers.flatten(1)[: len(coefficients), : count * kept.factor.shape[0]]
        return (scaled @ terms).reshape(count, -1)


def _rounded(furthest: float) -> float:
    """The next number of a grid away from zero, so that the same polynomials come again and again."""
    if not furthest:
        return 0.0
    return math.copysign(2.0 ** (math.ceil(4 * math.log2(abs(furthest))) / 4), furthest)


@lru_cache(256)
def _nearest(furthest: float) -> list[float]:
    """Coefficients of the polynomial for 1/(1 + t) from 0 to `furthest`, exact to 1e-12; raises _Dear if too many."""
    if not -0.5 < furthest < 0.5:
        raise _Dear
    root = math.sqrt(1 + furthest)
    ratio = abs((root - 1) / (root + 1))  # by which each term is nearer
    terms = 1 if ratio == 0 else math.ceil(math.log(_EXACT) / math.log(ratio))
    if terms > _MOST_TERMS:
        raise _Dear
    if terms <= 1:
        return [1.0]
    low, high = min(0.0, furthest), max(0.0, furthest)
    found = np.polynomial.Chebyshev.interpolate(lambda t: 1 / (1 + t), terms - 1, domain=[low, high])
    return [float(value) for value in found.convert(kind=np.polynomial.Polynomial).coef]
