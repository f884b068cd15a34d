"""Steps of logistic regression from a discriminant, over all samples that it was solved from.

Taken where the recipe asks for it. A discriminant takes all classes for normal and equally spread; what that costs, a
step or two over the samples themselves give back. Nothing is drawn and nothing goes on from an earlier head, so the
outcome is a function of the samples alone, whatever order they came in. What steps added may be kept for a while, so
that a label that comes alone need not pay for a look at all the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from worker.learning.closed_form import ClosedFormSettings
from worker.learning.scatter import Discriminant, Linear, Scatter, inverted

MOST = 20_000
"""Samples looked at in one step: of more, those whose digests are the smallest, which is at random."""

SHRINKAGE = 0.5
"""The discriminant's ε at the start: the steps give back what this takes from it, and where they walk it damps."""

START = ClosedFormSettings("slda", strength=SHRINKAGE)
"""What steps begin from."""

STEP = 2.0  # −∇² ≼ ½·Σ s_i zzᵀ, so that twice its inverse is the length of a Newton step at least

_CHUNK = 1024

_GROWTH = 8  # steps are taken again when the samples have grown by one in so many
_CLASS_GROWTH = 2  # or when those of one class have become so many times as many


def refined(
    scatter: Scatter,
    start: Discriminant,
    features: Mapping[str, Tensor],
    labels: Mapping[str, int],
    *,
    steps: int,
    scale: float,
) -> Linear:
    """Let a discriminant take `steps`; features (width,) and label ids of its samples are by content digest.

    W ← W + η·Σ_i s_i (e_{y_i} − p_i) z̃_iᵀ Λ and b ← b + η·Σ_i s_i (e_{y_i} − p_i), with z̃ = z − mean, Λ the inverse
    of the shrunk covariance that the start was solved by, one curvature for all steps (Böhning 1992), and s_i =
    1/(C·n_y), so that every class weighs the same. In float64. The start is that of START, times `scale`.
    """
    place = {label: row for row, label in enumerate(scatter.label_ids)}
    digests = [digest for digest in sorted(labels)[:MOST] if digest in features and labels[digest] in place]
    targets = torch.tensor([place[labels[digest]] for digest in digests], dtype=torch.int64)
    mean = (scatter.weights @ scatter.means) / scatter.total
    w, b = start.weight * scale, (start.bias + start.weight @ mean) * scale  # of z̃
    counts = torch.bincount(targets, minlength=len(place)).double().clamp(min=1)
    shares = (1 / counts)[targets] / max(len(set(targets.tolist())), 1)  # sum to 1
    known = torch.stack([features[digest] for digest in digests]) if digests else mean.new_zeros(0, len(mean))
    for _ in range(steps if digests else 0):
        slope, level = torch.zeros_like(w), torch.zeros_like(b)
        for part, their_targets, their_shares in zip(
            torch.split(known, _CHUNK), torch.split(targets, _CHUNK), torch.split(shares, _CHUNK), strict=True
        ):
            rows = part.double() - mean  # (n, width)
            wrong = functional.one_hot(their_targets, len(place)) - (rows @ w.T + b).softmax(1)  # (n, labels)
            wrong *= their_shares[:, None]
            slope.addmm_(wrong.T, rows)
            level += wrong.sum(0)
        w = w + STEP * inverted(start.factor, slope)
        b = b + STEP * level
    return Linear(scatter.label_ids, w, b - w @ mean)


@dataclass(frozen=True, eq=False)
class KeptSteps:
    """What steps added to the head that they began from, over the samples that were there then."""

    steps: int
    scale: float
    counts: Mapping[int, int]  # samples of each label
    moved: Linear  # what was added

    @classmethod
    def between(
        cls, start: Discriminant, end: Linear, counts: Mapping[int, int], *, steps: int, scale: float
    ) -> "KeptSteps":
        """Keep what led from `start`, times `scale`, to `end`."""
        moved = Linear(end.label_ids, end.weight - start.weight * scale, end.bias - start.bias * scale)
        return cls(steps, scale, dict(counts), moved)

    @property
    def samples(self) -> int:
        """How many samples they were taken over."""
        return sum(self.counts.values())

    def hold(self, counts: Mapping[int, int], *, steps: int, scale: float) -> bool:
        """Tell whether they may stand for steps over the samples now, none of which went since.

        No label is new, no class has more than twice its samples, all together have grown by an eighth at most.
        """
        if (self.steps, self.scale) != (steps, scale):
            return False
        if _GROWTH * sum(counts.values()) > (_GROWTH + 1) * self.samples:
            return False
        return all(count <= _CLASS_GROWTH * self.counts.get(label, 0) for label, count in counts.items())

    def added_to(self, start: Linear) -> Linear:
        """Add them to what START gives now, times `scale`."""
        weight, bias = start.weight * self.scale, start.bias * self.scale
        rows = [start.label_ids.index(label) for label in self.moved.label_ids]
        weight[rows] += self.moved.weight
        bias[rows] += self.moved.bias
        return Linear(start.label_ids, weight, bias)
