"""How samples lie in the space of features: each class's mean, and one scatter around the means that all share.

Made by `sums`, read by the closed forms. Knows nothing of labels' names or of how a head is solved.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_STEPS = 8  # of a level, to each of its doublings


@dataclass(frozen=True)
class Centres:
    """Where the classes lie. Labels in any order, none of them empty. All float64."""

    label_ids: tuple[int, ...]
    means: Tensor  # (labels, width)
    weights: Tensor  # (labels,) samples, or less where they fade
    samples: Tensor  # (labels,) int64

    @property
    def total(self) -> float:
        return float(self.weights.sum())


@dataclass(frozen=True)
class Scatter(Centres):
    """The same with the scatter around them."""

    within: Tensor  # (width, width) Σ (z − μ_y)(z − μ_y)ᵀ; the upper triangle is the one to read
    energy: float  # mean over features of Σ z²

    def level(self, square: Tensor) -> float:
        """Give the mean of a square's diagonal, rounded, which a strength is relative to."""
        return level(float(square.diagonal().mean()), self.energy)


def level(mean: float, energy: float) -> float:
    """Give the mean of a diagonal as a strength is relative to it: rounded to the nearest eighth of an octave.

    At most 4.5 % off, where strengths to choose from lie a factor of two or three apart. So most samples that come
    leave the regularized part of a matrix as it is, and one direction tells all that changed. Still a function of the
    samples alone. Where the samples do not vary, as with one of each class, the features' energy stands in, and 1 for
    that.
    """
    energy = max(energy, 0.0)  # of samples that all went, less than nothing may be left by rounding
    exact = mean if mean > 1e-10 * energy else energy or 1.0
    return math.pow(2.0, round(_STEPS * math.log2(exact)) / _STEPS)


def inverted(factor: Tensor, rows: Tensor) -> Tensor:
    """Give rows·A⁻¹, (n, width), of A = UᵀU with the upper triangle `factor`.

    By two triangular systems; `torch.cholesky_solve` copies the factor first.
    """
    half = torch.linalg.solve_triangular(factor.T, rows.T, upper=False)
    solution: Tensor = torch.linalg.solve_triangular(factor, half, upper=True)
    return solution.T


@dataclass(frozen=True)
class Linear:
    """A linear score of each label, z ↦ zWᵀ + b, on the scale of log-probabilities. float64."""

    label_ids: tuple[int, ...]
    weight: Tensor  # (labels, width)
    bias: Tensor  # (labels,)


@dataclass(frozen=True)
class Discriminant:
    """A linear score of each label, z ↦ zWᵀ + b, solved from a scatter; on the scale of log-probabilities. float64."""

    weight: Tensor  # (labels, width)
    bias: Tensor  # (labels,)
    factor: Tensor  # (width, width) upper triangular U of the matrix UᵀU that was inverted
    scale: float  # what the solved form was multiplied by to be on that scale

    def whitened(self, rows: Tensor) -> Tensor:
        """Map rows (n, width) to r with r·r = zᵀ(UᵀU)⁻¹z, (n, width)."""
        solution: Tensor = torch.linalg.solve_triangular(self.factor.T, rows.T, upper=False)
        return solution.T
