"""Rows that compete: where several heads answer at once, a sample is compared with the rows of its own head alone.

Called wherever logits meet labels. A head is a group; its members' loss is a mean, and groups' losses are summed.
"""

import torch
from torch import Tensor


def among_own(logits: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
    """Give the logits (samples, rows) with -inf in rows of other groups than the target's; groups (rows,) int64."""
    groups = groups.to(logits.device)
    return logits.masked_fill(groups != groups[targets].unsqueeze(1), float("-inf"))


def evened(losses: Tensor, targets: Tensor, groups: Tensor) -> Tensor:
    """Weigh losses (samples,) so that their mean is the sum of the means of the groups that are among them."""
    own = groups.to(losses.device)[targets]
    counts = torch.bincount(own)
    return losses * (len(losses) / counts[own])
