"""Standardisation of features that come on whatever scale, learned from the first samples taught.

A layer of backbones that take raw numbers, so its statistics are saved, digested and rolled back with the weights.
The worker calls `standardize` before it trains; nobody else changes the statistics.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

FROZEN_AFTER = 200
"""Samples whose statistics are taken; then they stand still, so that cached features stay true."""

_KNEE = 8.0
"""Standard deviations up to which a value passes straight; beyond, it grows with its logarithm only."""


class Standardize(nn.Module):
    """Maps (batch, size) on raw scales to about zero mean and unit deviation.

    A column that never changed is centred and left on its scale. A value far outside what was seen is bent, not
    cut: s·(k + ln(|z|/k)) beyond k = 8 deviations, which keeps the order and cannot blow the network up.
    """

    mean: Tensor
    std: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, inputs: Tensor) -> None:
        """Take the statistics of (batch, size) raw rows in, until 200 rows were seen.

        Parallel update of mean and squared deviations (Chan, Golub, LeVeque 1979):
        M = M_a + M_b + δ²·n_a·n_b/n with δ = mean_b − mean_a.
        """
        seen = int(self.count)
        rows = inputs[: max(0, FROZEN_AFTER - seen)].detach().to("cpu", torch.float64)  # (rows, size)
        new = rows.shape[0]
        if new == 0:
            return
        mean = self.mean.to("cpu", torch.float64)
        squares = self.std.to("cpu", torch.float64).square() * seen
        total = seen + new
        delta = rows.mean(0) - mean
        squares = squares + (rows - rows.mean(0)).square().sum(0) + delta.square() * seen * new / total
        self.mean.copy_(mean + delta * new / total)
        self.std.copy_((squares / total).sqrt())
        self.count.fill_(total)

    def forward(self, inputs: Tensor) -> Tensor:
        return _bent(_scaled(inputs, self.mean, self._scale()))

    def prepared(self) -> Callable[[Tensor], Tensor]:
        """Give `forward`, to the same bits, for who asks often about a few rows while no statistics change."""
        mean, scale = self.mean, self._scale()

        def run(inputs: Tensor) -> Tensor:
            scaled = _scaled(inputs, mean, scale)
            if not len(scaled):
                return scaled
            least, most = (float(end) for end in scaled.aminmax())
            return scaled if max(-least, most) <= _KNEE else _bent(scaled)

        return run

    def _scale(self) -> Tensor:
        # What deviates by no more than the rounding of float32 is a constant: only centre it.
        return torch.where(self.std <= self.mean.abs() * 1e-6, torch.ones_like(self.std), self.std)


def _scaled(inputs: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return ((inputs - mean) / scale).clamp(-1e30, 1e30)  # (batch, size)


def _bent(scaled: Tensor) -> Tensor:
    size = scaled.abs()
    bent = _KNEE + torch.log(size.clamp(min=_KNEE) / _KNEE)
    return torch.where(size <= _KNEE, scaled, scaled.sign() * bent)


def standardize(network: nn.Module, inputs: Tensor) -> None:
    """Let every standardising layer of the network see (batch, …) inputs, as `Preprocessor.batch` gives them."""
    for module in network.modules():
        if isinstance(module, Standardize):
            module.observe(inputs)
