"""The catalog of optimizers, and their state as flat tensors: carried from update to update, extended by growth.

Called by the learner. Files are somebody else's business; what leaves here is one dict of tensors that safetensors
can hold, with the plain numbers as JSON in a tensor of bytes.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from worker.learning.failure import LearningFailed

Named = Mapping[str, nn.Parameter]
State = Mapping[str, Tensor]

_ABOUT = "about"


@dataclass(frozen=True)
class OptimizerSettings:
    kind: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    backbone_lr: float | None = None  # of everything but the head; None is `lr`


Groups = list[dict[str, Any]]
Constructor = Callable[[Groups, OptimizerSettings], torch.optim.Optimizer]

OPTIMIZERS: Mapping[str, Constructor] = MappingProxyType(
    {
        "sgd": lambda groups, settings: torch.optim.SGD(
            groups, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay, foreach=True
        ),
        "adam": lambda groups, settings: torch.optim.Adam(
            groups, lr=settings.lr, weight_decay=settings.weight_decay, foreach=True
        ),
        "adamw": lambda groups, settings: torch.optim.AdamW(
            groups, lr=settings.lr, weight_decay=settings.weight_decay, foreach=True
        ),
    }
)


def make_optimizer(named: Named, settings: OptimizerSettings, head: Collection[str] = ()) -> torch.optim.Optimizer:
    """Make the optimizer of the catalog; raises LearningFailed for a kind it has not.

    `head` are the names of the parameters that learn at `lr` while all others learn at `backbone_lr`, if it is given.
    """
    if settings.kind not in OPTIMIZERS:
        raise LearningFailed(f"There is no optimizer {settings.kind!r}; choose one of {', '.join(OPTIMIZERS)}.")
    by_rate: dict[float, list[nn.Parameter]] = {}
    for name, rate in rates(named, settings, head).items():
        by_rate.setdefault(rate, []).append(named[name])
    return OPTIMIZERS[settings.kind]([{"params": params, "lr": rate} for rate, params in by_rate.items()], settings)


def rates(named: Named, settings: OptimizerSettings, head: Collection[str] = ()) -> dict[str, float]:
    """Give each parameter's learning rate."""
    shared = settings.lr if settings.backbone_lr is None else settings.backbone_lr
    return {name: settings.lr if name in head else shared for name in named}


def export_state(optimizer: torch.optim.Optimizer, named: Named, settings: OptimizerSettings) -> dict[str, Tensor]:
    """Copy the optimizer's state out as `<slot>/<parameter>` → tensor, plus `about`."""
    tensors = {
        f"{slot}/{name}": value.detach().to("cpu", copy=True)
        for name, parameter in named.items()
        for slot, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }
    return {**tensors, _ABOUT: _to_bytes({"format": 1, "optimizer": settings.kind})}


def import_state(optimizer: torch.optim.Optimizer, named: Named, settings: OptimizerSettings, state: State) -> bool:
    """Copy an exported state in; tell whether it was of this kind of optimizer.

    A parameter with more rows than its slots had gets zeros for the new rows: what the old ones had gathered goes on
    to count. A parameter without a slot, or of another shape, begins anew.
    """
    about = _from_bytes(state[_ABOUT]) if _ABOUT in state else {}
    if about.get("optimizer") != settings.kind:
        return False
    slots: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        slot, _, name = key.partition("/")
        if name in named:
            slots.setdefault(name, {})[slot] = value
    for name, values in slots.items():
        parameter = named[name]
        fitted = {slot: _fitted(value, parameter) for slot, value in values.items()}
        if all(value is not None for value in fitted.values()):
            optimizer.state[parameter] = fitted
    return True


def _fitted(value: Tensor, parameter: nn.Parameter) -> Tensor | None:
    if value.dim() == 0:
        return value.clone()  # a step count; torch keeps it on the CPU
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
