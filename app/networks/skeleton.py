"""Backbones without numbers: the form of a network, built once, that each version's own tensors are put into.

Called by the VersionLoader. Nothing is drawn and nothing is copied: what is filled in is held as it is, so weights
that are mapped from a file stay mapped. Knows nothing of files.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from app.networks.backbone import Backbone
from app.networks.delta import head_shapes
from app.networks.serialization import BACKBONE, Pause, require_fit
from app.networks.spec import NetworkSpec


@dataclass(frozen=True)
class Skeleton:
    """A backbone whose saved tensors hold no element, and what they are to be. Never changed, so safe to share.

    What is not saved, such as a table that the constructor computes, is there as the constructor made it.
    """

    module: nn.Module
    width: int
    shapes: Mapping[str, Tensor]

    def require_fit(self, spec: NetworkSpec, tensors: Mapping[str, Tensor], pause: Pause) -> None:
        """Raise Corrupt unless `tensors` are exactly the state of the spec's network on this backbone."""
        own = {f"{BACKBONE}{name}": shape for name, shape in self.shapes.items()}
        require_fit({**own, **head_shapes(spec, self.width)}, tensors, pause=pause)

    def filled(self, tensors: Mapping[str, Tensor], placed: Callable[[str, Tensor], Tensor] | None = None) -> Backbone:
        """Give a backbone in eval mode that holds those of `tensors` that are its own; they have been found to fit.

        `placed` gives the tensor to hold for a name and what was saved under it: the saved one where left out.
        """
        module = copy.deepcopy(self.module)
        for name, tensor in module.state_dict(keep_vars=True).items():
            saved = tensors[f"{BACKBONE}{name}"]
            # The parameter stays the object it is: a user's network may hold it under other names as well.
            tensor.data = saved if placed is None else placed(name, saved)
        return Backbone(module.eval(), self.width)


def hollowed(backbone: Backbone) -> Skeleton:
    """Make a skeleton of a backbone, which is used up; it may be on the meta device."""
    module = backbone.module
    state = module.state_dict(keep_vars=True)
    shapes = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for name, tensor in state.items()}
    if any(tensor.is_meta for tensor in state.values()):
        # What `to_empty` calls, which first imports a compiler for five seconds.
        module._apply(_nothing)  # type: ignore[no-untyped-call]  # noqa: SLF001  # type: ignore[no-untyped-call]
    else:
        for tensor in state.values():
            tensor.data = _nothing(tensor)
    return Skeleton(module.eval(), backbone.width, shapes)


def _nothing(tensor: Tensor) -> Tensor:
    return torch.empty(0, dtype=tensor.dtype, device="cpu")


def is_whole_state(module: nn.Module) -> bool:
    """Say whether a module's saved tensors are all that it has: nothing would be lost that no file holds."""
    saved = module.state_dict().keys()
    return all(name in saved for name, _ in module.named_buffers(remove_duplicate=False))
