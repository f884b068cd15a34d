"""½ Σᵢ ‖rᵢ ⊙ (θᵢ − θᵢ*)‖²: weights held at points, what L2-SP and EWC are made of.

A penalty of this kind runs in every step over every parameter, so the stepper adds its gradient, which is known in
closed form, without asking autograd, to weights that are laid end to end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.learning.penalty import Step
from worker.learning.weight_vectors import WeightVectors


class HeldWeights:
    """Holds the first rows of each weight, as many as its point has."""

    def __init__(
        self, weights: Sequence[nn.Parameter], points: Sequence[Tensor], roots: Sequence[Tensor | float]
    ) -> None:
        """`roots` are the square roots of the strengths: for each weight a number, or a tensor like its point."""
        self._held = {weight: (point, root) for weight, point, root in zip(weights, points, roots, strict=True)}

    def __call__(self, step: Step | None = None) -> Tensor:
        """Give the scalar in a form that autograd understands."""
        value = torch.zeros(())
        for weight, (point, root) in self._held.items():
            rows = weight if weight.shape == point.shape else weight[: len(point)]
            value = value + ((rows - point) * root).square().sum() / 2
        return value

    def over(self, weights: WeightVectors) -> "Pull":
        """Prepare the same for the steps of these weights; what is held and is not among them does not learn."""
        runs: list[list[_Stretch]] = []
        for parameter, place in weights.place_of.items():
            if parameter in self._held:
                point, root = self._held[parameter]
                flat = root.flatten() if isinstance(root, Tensor) else root
                own = _Stretch(place.vector, place.start, point.flatten(), flat)
                if runs and runs[-1][-1].goes_on_in(own):
                    runs[-1].append(own)
                else:
                    runs.append([own])
        return Pull(weights, [_Stretch.joined(run) for run in runs])


@dataclass(frozen=True)
class _Stretch:
    """Neighbours in a vector that are held, from `start` on."""

    vector: int
    start: int
    point: Tensor  # (n,)
    root: Tensor | float  # (n,) or one for all

    def goes_on_in(self, other: "_Stretch") -> bool:
        """Whether nothing lies between them and they are held alike: by the same number, or by a tensor each."""
        if (self.vector, self.start + len(self.point)) != (other.vector, other.start):
            return False
        if isinstance(self.root, Tensor) or isinstance(other.root, Tensor):
            return isinstance(self.root, Tensor) and isinstance(other.root, Tensor)
        return self.root == other.root

    @classmethod
    def joined(cls, run: "list[_Stretch]") -> "_Stretch":
        """One of several that go on in each other."""
        roots = [one.root for one in run if isinstance(one.root, Tensor)]
        root = torch.cat(roots) if roots else run[0].root
        return cls(run[0].vector, run[0].start, torch.cat([one.point for one in run]), root)


class Pull:
    """The gradient of held weights, over stretches of vectors."""

    def __init__(self, weights: WeightVectors, stretches: list[_Stretch]) -> None:
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor | float]] = []  # weights, gradient, point, root
        for one in stretches:
            part = slice(one.start, one.start + len(one.point))
            self._parts.append(
                (weights.vectors[one.vector][part], weights.gradients[one.vector][part], one.point, one.root)
            )

    def __call__(self) -> Tensor:
        """Add the gradient to the weights' own and give the scalar."""
        values = []
        for weight, gradient, point, root in self._parts:
            apart = weight - point
            if isinstance(root, float):  # one strength for all: it need not be multiplied in twice
                gradient.add_(apart, alpha=root**2)
                values.append(torch.dot(apart, apart) * (root**2 / 2))
            else:
                apart.mul_(root)
                gradient.addcmul_(apart, root)
                values.append(torch.dot(apart, apart) / 2)
        return sum(values[1:], values[0]) if values else torch.zeros(())


def old_slice(weight: Tensor, shape: torch.Size) -> Tensor | None:
    """The part of a weight that existed when it had `shape`: its first rows; None where it is another weight."""
    if weight.shape == shape:
        return weight
    fits = weight.dim() == len(shape) and weight.shape[1:] == shape[1:] and len(weight) > shape[0]
    return weight[: shape[0]] if fits else None
