"""How BatchNorm behaves while a network learns from small batches.

Called by the learner. Running statistics drift within a few hundred small or one-sided batches, without a single
optimizer step; so they move only where the caller allows it and the batch is large enough to be worth counting.
"""

from torch import nn

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

LEAST_BATCH = 16


def set_training(network: nn.Module, *, batch: int, statistics: bool) -> None:
    """Put `network` into training mode, BatchNorms only if `statistics` may move and enough distinct samples came."""
    network.train()
    if statistics and batch >= LEAST_BATCH:
        return
    for module in network.modules():
        if isinstance(module, _BATCH_NORMS):
            module.eval()
