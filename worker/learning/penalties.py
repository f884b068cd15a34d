"""Loss terms that hold a network back while it learns, and the catalog of them.

The learner adds them to the loss of every step. A penalty knows the network it watches and the one it started from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PenaltySettings:
    kind: str = "l2_sp"
    strength: float = 0.01


@dataclass(frozen=True)
class Step:
    """What a step computed: enough for a penalty on outputs, ignored by one on weights."""

    inputs: Tensor  # (batch, …)
    targets: Tensor  # (batch,) rows of the head
    logits: Tensor  # (batch, rows)


class Penalty(Protocol):
    """A scalar, never negative, that the loss of a step is raised by."""

    def __call__(self, step: Step) -> Tensor: ...


class L2SP:
    """strength/2 · ‖θ − θ*‖² over the parameters that learn (Li, Grandvalet and Davoine 2018, arXiv 1802.01483).

    θ* are the weights of `anchor`. A parameter that has grown since has more rows than its anchor: the new rows are
    free, only the old slice is held. A parameter the anchor has not at all is free too.
    """

    def __init__(self, network: nn.Module, anchor: nn.Module, strength: float) -> None:
        self.strength = strength
        self._held: list[Tensor] = []
        self._anchors: list[Tensor] = []
        points = dict(anchor.named_parameters())
        for name, parameter in network.named_parameters():
            point = points.get(name)
            if point is None or not parameter.requires_grad or point.numel() == 0:
                continue
            held = parameter if parameter.shape == point.shape else parameter[: point.shape[0]]
            if held.shape != point.shape:
                continue
            self._held.append(parameter)
            self._anchors.append(point.detach().clone().to(parameter.device))

    def __call__(self, step: Step | None = None) -> Tensor:
        if not self._held:
            return torch.zeros(())
        rows = [
            parameter if parameter.shape == point.shape else parameter[: point.shape[0]]
            for parameter, point in zip(self._held, self._anchors, strict=True)
        ]
        moves = torch._foreach_sub(rows, self._anchors)  # noqa: SLF001 - torch names its multi-tensor operations so
        norms: tuple[Tensor, ...] = torch._foreach_norm(moves)  # noqa: SLF001
        return self.strength / 2 * torch.stack(norms).square().sum()


Constructor = Callable[[nn.Module, nn.Module, PenaltySettings], Penalty]

PENALTIES: Mapping[str, Constructor] = MappingProxyType(
    {"l2_sp": lambda network, anchor, settings: L2SP(network, anchor, settings.strength)}
)
