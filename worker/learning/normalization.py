"""How BatchNorm behaves while a network learns from small batches.

Called by the learner. Running statistics drift within a few hundred small or one-sided batches, without a single
optimizer step; so they move only where the caller allows it and the batch is large enough to be worth counting.
"""

from torch import nn

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

LEAST_BATCH = 16


def statistics_move(*, batch: int, statistics: bool) -> bool:
    """Whether running statistics take such a batch in: if they may, and enough distinct samples came."""
    return statistics and batch >= LEAST_BATCH


def moving_statistics(network: nn.Module) -> list[nn.Module]:
    """List the BatchNorms whose statistics may move: not those in layers that stand still, or these would not."""
    return [
        module
        for module in network.modules()
        if isinstance(module, _BATCH_NORMS)
        and (not list(module.parameters()) or any(parameter.requires_grad for parameter in module.parameters()))
    ]


def set_training(network: nn.Module, *, move: bool) -> None:
    """Put `network` into training mode, of the BatchNorms only those that may move, and only if they are to."""
    network.train()
    moving = set(moving_statistics(network)) if move else set()
    for module in network.modules():
        if isinstance(module, _BATCH_NORMS) and module not in moving:
            module.eval()
