"""Deltas: a version as what it changes of another one, its base; most often the head alone, kilobytes for megabytes.

Called by the VersionLoader. A network put together here shares with its base every tensor that it did not change.
Knows nothing of files or versions.
"""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from app.errors import InvalidNetwork
from app.networks.backbone import Backbone
from app.networks.head import Head
from app.networks.network import Network
from app.networks.projection import Projection
from app.networks.serialization import BACKBONE, HEAD, listed, require_fit
from app.networks.spec import NetworkSpec

Tensors = Mapping[str, Tensor]


def delta_of(state: Tensors, base_state: Tensors) -> dict[str, Tensor]:
    """Give what of a network's state is not, bit for bit, in its base's: always the head, whose rows may differ.

    The tensors are the state's own, not copies. InvalidNetwork when the two backbones are not of one make.
    """
    own, base = _names(state), _names(base_state)
    if own != base:
        raise InvalidNetwork(
            f"A delta needs a base with the same backbone: the base lacks {listed(sorted(own - base))}, "
            f"and has beside it {listed(sorted(base - own))}. Save the version in full."
        )
    return {name: tensor for name, tensor in state.items() if name not in own or not _same(tensor, base_state[name])}


def apply_delta(
    spec: NetworkSpec,
    base: Backbone,
    tensors: Tensors,
    move: Callable[[Backbone, Tensors], Backbone] | None = None,
    projection: Projection | None = None,
) -> Network:
    """Give the network of a spec from a base's backbone and a saved delta; Corrupt when they do not fit.

    Names must be the head's or the backbone's, shapes and dtypes those of the spec and of the base, every number
    finite. Where the backbone is unchanged the network holds the base's own module; otherwise what `move` makes of
    it, `moved` if left out. The base stays as it was; who wants to change the network copies it first.
    """
    changed = {name.removeprefix(BACKBONE): tensor for name, tensor in tensors.items() if name.startswith(BACKBONE)}
    state = base.module.state_dict() if changed else {}  # asked of a backbone of many layers it takes milliseconds
    own = {f"{BACKBONE}{name}": tensor for name, tensor in state.items()}
    require_fit({**own, **head_shapes(spec, base.width)}, tensors, optional=own)
    backbone = (move or moved)(base, changed) if changed else base
    return headed(spec, backbone, tensors, projection)


def moved(base: Backbone, tensors: Tensors) -> Backbone:
    """Give the backbone with some tensors of its state replaced; all others are the base's own, not copies."""
    state = base.module.state_dict(keep_vars=True)
    replaced = {id(state[name]) for name in tensors}
    kept = {id(tensor): tensor for tensor in state.values() if id(tensor) not in replaced}
    module: nn.Module = copy.deepcopy(base.module, kept)  # what the memo holds is not copied
    own = module.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    return Backbone(module, base.width, base.head_name)


def headed(spec: NetworkSpec, backbone: Backbone, tensors: Tensors, projection: Projection | None = None) -> Network:
    """Put a backbone and the saved head among `tensors` together, in eval mode; they have been found to fit."""
    head = Head(spec.projection or backbone.width, (), spec.seed)
    head.weight, head.bias = (nn.Parameter(tensors[f"{HEAD}{name}"].clone()) for name in ("weight", "bias"))
    return Network(spec, backbone.module, head, backbone.width, projection).eval()


def head_shapes(spec: NetworkSpec, width: int) -> dict[str, Tensor]:
    """Give the head's part of the spec's state as tensors without numbers."""
    rows = len(spec.labels)
    return {
        f"{HEAD}weight": torch.empty(rows, spec.projection or width, device="meta"),
        f"{HEAD}bias": torch.empty(rows, device="meta"),
    }


def _names(state: Tensors) -> set[str]:
    return {name for name in state if not name.startswith(HEAD)}


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride() and one.device == other.device:
        return True  # shared with the base
    return torch.equal(_bits(one), _bits(other))  # zero and minus zero are two things to a digest


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
