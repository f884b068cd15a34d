"""A fixed random layer between backbone and head: more features for a head that is solved, none that learn.

Part of the network's forward pass. Its numbers come from the spec's seed, so no file holds them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Projection(nn.Module):
    """h = relu(z·W), W ~ N(0, 1/in) drawn from a seed (RanPAC: McDonnell et al. 2023, arXiv 2307.02251).

    The factor keeps h on the scale of z. The draw is the same on every machine; it is no parameter and no part of
    the state.
    """

    matrix: Tensor

    def __init__(self, width_in: int, width_out: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed * 1_000_003 + width_out)
        drawn = torch.randn(width_in, width_out, generator=generator) / width_in**0.5
        self.register_buffer("matrix", drawn, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, width_in) to (batch, width_out)."""
        return functional.relu(features @ self.matrix)
