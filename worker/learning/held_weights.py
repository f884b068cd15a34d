"""½ Σᵢ ‖rᵢ ⊙ (θᵢ − θᵢ*)‖²: weights held at points, what L2-SP and EWC are made of.

A penalty of this kind runs in every step over every parameter, so all of it is a handful of multi-tensor kernels, and
the stepper adds its gradient, which is known in closed form, without asking autograd.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from worker.learning.penalty import Step

# torch names its multi-tensor operations with an underscore; its own optimizers are made of them.


class HeldWeights:
    """Holds the first rows of each weight, as many as its point has."""

    def __init__(self, weights: list[nn.Parameter], points: list[Tensor], roots: list[Tensor] | Tensor) -> None:
        """`roots` are the square roots of the strengths: one tensor for each weight, or one number for all."""
        self._weights, self._points, self._roots = weights, points, roots
        self._strength = float(roots) ** 2 if isinstance(roots, Tensor) else math.nan

    def __call__(self, step: Step | None = None) -> Tensor:
        """Give the scalar in a form that autograd understands."""
        if not self._weights:
            return torch.zeros(())
        value: Tensor = _HalfSquares.apply(self._points, self._roots, *_rows(self._weights, self._points))
        return value

    @torch.no_grad()
    def pull(self) -> Tensor:
        """Add the gradient to the weights' own and give the scalar: the same as above in a third of the time."""
        if not self._weights:
            return torch.zeros(())
        for weight in self._weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        held = _rows(gradients, self._points)
        if isinstance(self._roots, Tensor):  # one strength for all: it need not be multiplied in twice
            apart: tuple[Tensor, ...] = torch._foreach_sub(_rows(self._weights, self._points), self._points)  # noqa: SLF001
            torch._foreach_add_(held, apart, alpha=self._strength)
            return _squares(apart) * (self._strength / 2)
        moves, value = _moves(_rows(self._weights, self._points), self._points, self._roots)
        torch._foreach_addcmul_(held, moves, self._roots)
        return value


class _HalfSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: list[Tensor], roots: list[Tensor] | Tensor, *weights: Tensor) -> Tensor:
        moves, value = _moves(list(weights), points, roots)
        ctx.moves, ctx.roots = moves, roots
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        pulls = torch._foreach_mul(ctx.moves, ctx.roots)  # noqa: SLF001
        torch._foreach_mul_(pulls, gradients[0])
        return None, None, *pulls


def _moves(weights: list[Tensor], points: list[Tensor], roots: list[Tensor] | Tensor) -> tuple[list[Tensor], Tensor]:
    moves = list(torch._foreach_sub(weights, points))  # noqa: SLF001
    torch._foreach_mul_(moves, roots)
    return moves, _squares(moves) / 2


def _squares(moves: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    norms: tuple[Tensor, ...] = torch._foreach_norm(moves)  # noqa: SLF001
    squares: Tensor = torch.stack(norms).norm().square()
    return squares


def _rows(tensors: list[nn.Parameter] | list[Tensor], points: list[Tensor]) -> list[Tensor]:
    return [
        tensor if tensor.shape == point.shape else tensor[: len(point)]
        for tensor, point in zip(tensors, points, strict=True)
    ]


def old_slice(weight: Tensor, shape: torch.Size) -> Tensor | None:
    """The part of a weight that existed when it had `shape`: its first rows; None where it is another weight."""
    if weight.shape == shape:
        return weight
    fits = weight.dim() == len(shape) and weight.shape[1:] == shape[1:] and len(weight) > shape[0]
    return weight[: shape[0]] if fits else None
