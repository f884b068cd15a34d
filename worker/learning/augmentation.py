"""Random changes of prepared pictures while they are learned; what is stored and what judges stays as it came.

Called by the course for each batch. Knows pictures as float tensors only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.learning.failure import LearningFailed


@dataclass(frozen=True)
class AugmentationSettings:
    """Random crops of padded pictures and mirroring; 0 and False change nothing."""

    crop: int = 0
    flip: bool = False


def augmented(inputs: Tensor, settings: AugmentationSettings, generator: torch.Generator) -> Tensor:
    """Shift each picture of (batch, channels, height, width) by up to `crop` pixels, mirror half of them.

    Each has its own draw. A shift is a crop of the same size out of the picture padded by its outermost pixels (what
    black has become after normalization is not known here). The input stays as it was. Raises LearningFailed for
    anything but pictures.
    """
    if not settings.crop and not settings.flip:
        return inputs
    if inputs.dim() != 4:
        raise LearningFailed(
            f"augmentation: crops and flips need pictures (batch, channels, height, width), and a batch is "
            f"{tuple(inputs.shape)}; leave `augmentation` out."
        )
    count, _, height, width = inputs.shape
    down, right = torch.randint(-settings.crop, settings.crop + 1, (2, count, 1), generator=generator)
    rows = (torch.arange(height) + down).clamp(0, height - 1)  # (batch, height)
    columns = (torch.arange(width) + right).clamp(0, width - 1)  # (batch, width)
    if settings.flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = rows.to(inputs.device), columns.to(inputs.device)
    tall = inputs.gather(2, rows[:, None, :, None].expand_as(inputs))
    return tall.gather(3, columns[:, None, None, :].expand_as(inputs))
