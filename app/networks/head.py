"""What maps features to labels: one row of weights for each label id, and no label's logit depends on another's row.

`Network` owns one. Knows nothing of images, label names or training.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCK = 64
"""Rows multiplied at a time. Part of the promise that growth moves nothing: see `Head.forward`."""


def fresh_row(width: int, seed: int, label_id: int) -> Tensor:
    """Draw the first weights of a label's row: uniform in ±1/√width, the same for a seed and label id always.

    Each row has a generator of its own, so neither the order of arrival nor the number of labels moves it.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + label_id)
    bound = width**-0.5
    return torch.empty(width).uniform_(-bound, bound, generator=generator)  # (width,)


class Head(nn.Module):
    """A linear layer whose rows are labels in the order in which they came.

    `weight` is (labels, width) and `bias` is (labels,): exactly one row a label, also when there is none.
    """

    def __init__(self, width: int, labels: Sequence[int], seed: int) -> None:
        super().__init__()
        rows = [fresh_row(width, seed, label_id) for label_id in labels]
        self.weight = nn.Parameter(torch.stack(rows) if rows else torch.empty(0, width))
        self.bias = nn.Parameter(torch.zeros(len(rows)))

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, width) to (batch, labels).

        The rows are multiplied in blocks of 64 padded with zeros: a matrix product may sum in another order when
        the matrix has another shape, so a plain linear layer moves its old logits by a rounding when a row is
        added. Every product here has the same shape whatever the number of labels, so they stay bit-equal.
        """
        return self.prepared()(features)

    def prepared(self) -> Callable[[Tensor], Tensor]:
        """Give `forward` with the rows padded and cut once, for who asks often and changes no row in between."""
        rows = self.weight.shape[0]
        padding = -rows % BLOCK
        weight = functional.pad(self.weight, (0, 0, 0, padding))  # (blocks * 64, width)
        bias = functional.pad(self.bias, (0, padding))  # (blocks * 64,)
        blocks = list(zip(torch.split(weight, BLOCK), torch.split(bias, BLOCK), strict=True)) if rows else []

        def multiplied(features: Tensor) -> Tensor:
            if not blocks:
                return features.new_empty((features.shape[0], 0))
            logits = [functional.linear(features, block, offset) for block, offset in blocks]  # (batch, 64) each
            return (logits[0] if len(logits) == 1 else torch.cat(logits, dim=1))[:, :rows]  # (batch, labels)

        return multiplied
