"""½ Σᵢ ‖rᵢ ⊙ (θᵢ − θᵢ*)‖² with its gradient in closed form: what penalties on weights are made of.

A penalty runs in every step over every parameter, so all of it is a handful of multi-tensor kernels, and autograd
sees one node instead of several for each parameter.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# torch names its multi-tensor operations with an underscore; its own optimizers are made of them.


class _HalfSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: list[Tensor], roots: list[Tensor] | list[float], *weights: Tensor) -> Tensor:
        moves = torch._foreach_sub(weights, points)  # noqa: SLF001
        torch._foreach_mul_(moves, roots)
        norms: tuple[Tensor, ...] = torch._foreach_norm(moves)  # noqa: SLF001
        ctx.moves, ctx.roots = moves, roots
        return torch.stack(norms).square().sum() / 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        pulls = torch._foreach_mul(ctx.moves, ctx.roots)  # noqa: SLF001
        torch._foreach_mul_(pulls, gradients[0])
        return None, None, *pulls


def half_squares(weights: Sequence[Tensor], points: list[Tensor], roots: list[Tensor] | list[float]) -> Tensor:
    """Give the scalar; `weights` learn, `points` and `roots` (one tensor or one number each) stand still."""
    value: Tensor = _HalfSquares.apply(points, roots, *weights)
    return value


def old_slice(weight: Tensor, shape: torch.Size) -> Tensor | None:
    """The part of a weight that existed when it had `shape`: its first rows; None where it is another weight."""
    if weight.shape == shape:
        return weight
    fits = weight.dim() == len(shape) and weight.shape[1:] == shape[1:] and len(weight) > shape[0]
    return weight[: shape[0]] if fits else None
