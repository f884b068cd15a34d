"""L2-SP: weights are pulled towards where they started. Made by the catalog of penalties."""

import torch
from torch import Tensor, nn

from worker.learning.failure import LearningFailed
from worker.learning.held_weights import HeldWeights, old_slice
from worker.learning.penalty import Origins, PenaltySettings


class L2SP(HeldWeights):
    """α/2·‖θ_shared − θ*‖² + β/2·‖θ_head − θ*_head‖² over what learns (Li, Grandvalet, Davoine 2018, arXiv 1802.01483).

    θ* are the weights of `anchor`; `head` names the parameters that β holds, towards zero if `head_to_zero`, as in
    the paper, where the pretrained head belongs to another question. A parameter that has grown since has more rows
    than its anchor: the new rows are free (towards zero, they are held too). A parameter the anchor has not at all
    is free.
    """

    def __init__(
        self,
        network: nn.Module,
        anchor: nn.Module,
        strength: float,
        *,
        head: frozenset[str] = frozenset(),
        head_strength: float | None = None,
        head_to_zero: bool = False,
    ) -> None:
        weights: list[nn.Parameter] = []
        anchors: list[Tensor] = []
        roots: list[float] = []
        points = dict(anchor.named_parameters())
        self.holds_shared = False
        for name, parameter in network.named_parameters():
            if not parameter.requires_grad:
                continue
            inside = name in head
            point = torch.zeros_like(parameter) if inside and head_to_zero else points.get(name)
            if point is None or not point.numel() or old_slice(parameter, point.shape) is None:
                continue
            weights.append(parameter)
            anchors.append(point.detach().to(parameter.device, copy=True))
            roots.append((head_strength if inside and head_strength is not None else strength) ** 0.5)
            self.holds_shared |= not inside
        super().__init__(weights, anchors, roots)


def l2_sp(network: nn.Module, origins: Origins, settings: PenaltySettings) -> L2SP:
    """Make it as a recipe says; LearningFailed where the anchor is missing or holds nothing that learns."""
    if settings.anchor == "previous":
        return L2SP(
            network, origins.previous, settings.strength, head=origins.head, head_strength=settings.head_strength
        )
    if origins.pretrained is None:
        raise LearningFailed(
            "penalties: l2_sp with anchor 'pretrained' needs the pretrained weights, and there are none; choose "
            "anchor 'previous'."
        )
    penalty = L2SP(
        network,
        origins.pretrained,
        settings.strength,
        head=origins.head,
        head_strength=settings.head_strength,
        head_to_zero=True,
    )
    if not penalty.holds_shared:
        raise LearningFailed(
            "penalties: l2_sp with anchor 'pretrained' holds the backbone, and nothing of it learns; choose anchor "
            "'previous' or another `trainable`."
        )
    return penalty
