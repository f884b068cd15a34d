"""The catalog of optimizers, and their state as flat tensors: carried from update to update, extended by growth.

Called by the course. Files are somebody else's business; what leaves here is one dict of tensors that safetensors
can hold, with the plain numbers as JSON in a tensor of bytes.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from worker.learning.failure import LearningFailed
from worker.learning.weight_vectors import WeightVectors

Named = Mapping[str, nn.Parameter]
State = Mapping[str, Tensor]

_ABOUT = "about"
_STEP = "step"  # the slot in which torch's optimizers count


@dataclass(frozen=True)
class OptimizerSettings:
    kind: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    backbone_lr: float | None = None  # of everything but the head; None is `lr`


Slots = dict[str, Tensor]
"""What is kept beside a vector, by name: tensors of its length, and one number, the count of steps."""


class Move(Protocol):
    def __call__(
        self, vector: Tensor, gradient: Tensor, slots: Slots, rate: float, settings: OptimizerSettings
    ) -> None: ...


@dataclass(frozen=True)
class Method:
    """A row of the catalog: the slots it needs, and how it moves a vector."""

    slots: tuple[str, ...]
    move: Move


def _sgd(vector: Tensor, gradient: Tensor, slots: Slots, rate: float, settings: OptimizerSettings) -> None:
    sgd(
        [vector],
        [gradient],
        [slots["momentum_buffer"]],
        fused=True,
        lr=rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )


def _adam(
    vector: Tensor,
    gradient: Tensor,
    slots: Slots,
    rate: float,
    settings: OptimizerSettings,
    *,
    decoupled: bool = False,
) -> None:
    adam(
        [vector],
        [gradient],
        [slots["exp_avg"]],
        [slots["exp_avg_sq"]],
        [],
        [slots[_STEP]],
        fused=True,
        decoupled_weight_decay=decoupled,
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
        lr=rate,
        weight_decay=settings.weight_decay,
        maximize=False,
    )


_MOMENTS = ("exp_avg", "exp_avg_sq", _STEP)

OPTIMIZERS: Mapping[str, Method] = MappingProxyType(
    {
        "sgd": Method(("momentum_buffer",), _sgd),
        "adam": Method(_MOMENTS, _adam),
        "adamw": Method(_MOMENTS, partial(_adam, decoupled=True)),
    }
)


class Optimizer:
    """Weights laid end to end, a vector for each learning rate, and the method of the catalog that moves them.

    The moves are torch's own, by its functional interface: one vector needs no groups, hooks and closures, which cost
    as much as the passes of a small network.
    """

    def __init__(
        self,
        weights: WeightVectors,
        settings: OptimizerSettings,
        rates: list[float],
        slots: list[Slots],
        *,
        resumed: bool,
    ) -> None:
        """`rates` and `slots` are of each vector of `weights`; `resumed` tells whether the slots are carried on."""
        self.weights, self.rates, self.resumed = weights, rates, resumed
        self._settings, self._slots, self._move = settings, slots, OPTIMIZERS[settings.kind].move

    def step(self) -> None:
        """Move the weights by the gradients in `weights`."""
        parts = zip(self.weights.vectors, self.weights.gradients, self._slots, self.rates, strict=True)
        for vector, gradient, slots, rate in parts:
            self._move(vector, gradient, slots, rate, self._settings)

    def export_state(self) -> dict[str, Tensor]:
        """Copy the state out as `<slot>/<parameter>` → tensor, plus `about`."""
        tensors = {_ABOUT: _to_bytes({"format": 1, "optimizer": self._settings.kind})}
        for name, place in self.weights.places.items():
            for slot, value in self._slots[place.vector].items():
                own = place.of(value) if value.dim() else value
                tensors[f"{slot}/{name}"] = own.to("cpu", copy=True)
        return tensors

    def copy_slots(self) -> list[Slots]:
        """Copy what is kept beside each vector."""
        return [{slot: value.clone() for slot, value in slots.items()} for slots in self._slots]

    def restore_slots(self, kept: list[Slots]) -> None:
        """Go on from what `copy_slots` gave."""
        for slots, before in zip(self._slots, kept, strict=True):
            for slot, value in before.items():
                slots[slot].copy_(value)


def make_optimizer(
    named: Named, settings: OptimizerSettings, head: Collection[str] = (), state: State | None = None
) -> Optimizer:
    """Make the optimizer of the catalog; raises LearningFailed for a kind it has not.

    `head` are the names of the parameters that learn at `lr` while all others learn at `backbone_lr`, if it is given.
    `state` is what one exported; of another kind of optimizer it is left aside. A parameter with more rows than its
    slots had gets zeros for the new rows: what the old ones had gathered goes on to count. A parameter without a slot,
    or of another shape, begins anew, counting its own steps.
    """
    if settings.kind not in OPTIMIZERS:
        raise LearningFailed(f"There is no optimizer {settings.kind!r}; choose one of {', '.join(OPTIMIZERS)}.")
    known = state if state is not None and _kind_of(state) == settings.kind else {}
    found = _found(named, known)
    by_rate = rates(named, settings, head)
    counts = {name: float(found[name][_STEP]) if _STEP in found.get(name, {}) else None for name in named}
    weights = WeightVectors(named, {name: (rate, counts[name]) for name, rate in by_rate.items()})
    slots: list[Slots] = []
    for names, vector in zip(weights.names, weights.vectors, strict=True):
        own: Slots = {}
        for slot in OPTIMIZERS[settings.kind].slots:
            parts = {name: found[name][slot] for name in names if slot in found.get(name, {})}
            if slot == _STEP:
                own[slot] = torch.tensor(counts[names[0]] or 0.0, device=vector.device)
            else:
                own[slot] = torch.zeros_like(vector)
                for name, value in parts.items():
                    weights.places[name].of(own[slot]).copy_(value)
        slots.append(own)
    each = [by_rate[names[0]] for names in weights.names]
    return Optimizer(weights, settings, each, slots, resumed=bool(known))


def rates(named: Named, settings: OptimizerSettings, head: Collection[str] = ()) -> dict[str, float]:
    """Give each parameter's learning rate."""
    shared = settings.lr if settings.backbone_lr is None else settings.backbone_lr
    return {name: settings.lr if name in head else shared for name in named}


def _kind_of(state: State) -> str | None:
    return _from_bytes(state[_ABOUT]).get("optimizer") if _ABOUT in state else None


def _found(named: Named, state: State) -> dict[str, Slots]:
    """By parameter, the slots that fit; a parameter of which one does not fit has none."""
    slots: dict[str, Slots] = {}
    for key, value in state.items():
        slot, _, name = key.partition("/")
        if name in named:
            slots.setdefault(name, {})[slot] = value
    fitted = {name: {slot: _fitted(value, named[name]) for slot, value in own.items()} for name, own in slots.items()}
    return {
        name: {slot: value for slot, value in own.items() if value is not None}
        for name, own in fitted.items()
        if all(value is not None for value in own.values())
    }


def _fitted(value: Tensor, parameter: nn.Parameter) -> Tensor | None:
    if value.dim() == 0:
        return value  # a step count
    if value.dim() != parameter.dim() or value.shape[1:] != parameter.shape[1:] or len(value) > len(parameter):
        return None
    extended = torch.zeros_like(parameter, requires_grad=False)
    extended[: len(value)] = value
    return extended


def _to_bytes(about: dict[str, Any]) -> Tensor:
    return torch.tensor(list(json.dumps(about, sort_keys=True).encode()), dtype=torch.uint8)


def _from_bytes(tensor: Tensor) -> dict[str, Any]:
    try:
        about = json.loads(bytes(tensor.tolist()))
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}
