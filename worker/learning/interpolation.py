"""The weights of an update joined with those before it: θ = (1 − α)·θ_before + α·θ_learned.

Called by the learner when the steps are done (weight interpolation: Wortsman et al. 2022, arXiv 2109.01903; between
updates: Marouf et al. 2023, arXiv 2312.08977).
"""

from collections.abc import Iterable

import torch
from torch import nn

from worker.learning.held_weights import old_slice


@torch.no_grad()
def interpolate(network: nn.Module, parent: nn.Module, names: Iterable[str], share: float) -> None:
    """Move the tensors of these names towards the parent's; `share` α of what was learned stays.

    Rows that the parent has not keep what they learned, as does a tensor it has not at all. Counters are no weights:
    only floating-point tensors move.
    """
    learned, before = network.state_dict(), parent.state_dict()
    for name in names:
        tensor, point = learned[name], before.get(name)
        if point is None or not tensor.is_floating_point() or tensor.dim() != point.dim():
            continue
        old = old_slice(tensor, point.shape)
        if old is not None:
            old.copy_(torch.lerp(point.to(old.device), old, share))
