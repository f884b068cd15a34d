"""What a penalty is: a loss term that holds a network back while it learns.

The kinds stand in files of their own, the catalog in `penalties`. Added by the stepper to the loss of every step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class PenaltySettings:
    """One penalty of a recipe; each kind reads what concerns it."""

    kind: str = "l2_sp"
    strength: float = 0.01
    anchor: Literal["previous", "pretrained"] = "previous"  # l2_sp
    head_strength: float | None = None  # l2_sp; None is `strength`
    decay: float = 1.0  # ewc: what stays of the earlier importance
    samples: int = 500  # ewc: measured on so many at most
    normalise: bool = False  # ewc: each new importance is divided by its largest entry
    temperature: float = 2.0  # lwf
    name: str = ""  # own


@dataclass(frozen=True)
class Step:
    """What a step computed: enough for a penalty on outputs, ignored by one on weights."""

    inputs: Tensor  # (batch, …)
    targets: Tensor  # (batch,) rows of the head
    logits: Tensor  # (batch, rows)


class Penalty(Protocol):
    """A scalar, never negative, that the loss of a step is raised by."""

    def __call__(self, step: Step) -> Tensor: ...


OwnLoss = Callable[[nn.Module, Step], Tensor]


@dataclass(frozen=True)
class Origins:
    """What penalties may hold on to."""

    previous: nn.Module  # the network the update starts from, before it grew
    pretrained: nn.Module | None = None  # the network before any learning
    state: Mapping[str, Tensor] = field(default_factory=dict)  # what the learner left with `previous`
    rates: Mapping[str, float] = field(default_factory=dict)  # learning rate of each parameter
    own: Mapping[str, OwnLoss] = field(default_factory=dict)
    head: frozenset[str] = frozenset()  # names of the head's parameters
