"""Putting base weights, made elsewhere for other labels, into a backbone.

The file's own head is left out, whatever its size: a model's labels are its own. All else must fit.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from app.errors import InvalidNetwork
from app.networks.backbone import Backbone
from app.networks.serialization import listed

BaseWeights = Callable[[str], Mapping[str, Tensor]]
"""Resolves "sha256:<hex>" or "imagenet:<architecture>" to tensors; raises NotFound or InvalidNetwork."""


@torch.no_grad()
def load_base(backbone: Backbone, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy base weights into the backbone; on InvalidNetwork, which lists the keys, it is as it was.

    Takes the state of a whole classifier, or one that this product exported. A stem of three colours is added up
    for grey pictures, which is the same as repeating the one channel. Floats take the backbone's own dtype.
    """
    given = _backbone_keys(tensors, backbone.head_name)
    own = backbone.module.state_dict()
    fitted: dict[str, Tensor] = {}
    wrong: list[str] = []
    for name, tensor in given.items():
        if name not in own:
            continue
        fit = tensor
        if own[name].dim() == 4 and own[name].shape[1] == 1 and tensor.shape[1:2] == (3,):
            fit = tensor.sum(1, keepdim=True)
        if fit.shape != own[name].shape:
            wrong.append(f"{name} is {tuple(tensor.shape)}, expected {tuple(own[name].shape)}")
        elif not torch.isfinite(fit).all():
            wrong.append(f"{name} holds a number that is not finite")
        fitted[name] = fit
    # Files from before torch 0.4.1 do not count batches, and nothing here reads the count.
    missing = sorted(name for name in own.keys() - given.keys() if not name.endswith("num_batches_tracked"))
    foreign = sorted(given.keys() - own.keys())
    if missing or foreign or wrong:
        raise InvalidNetwork(
            f"The weights {source} do not fit this architecture: missing {listed(missing)}; "
            f"not expected {listed(foreign)}; of another form: {listed(wrong)}. "
            "Choose the architecture they were made for."
        )
    for name, tensor in fitted.items():
        own[name].copy_(tensor)


def _backbone_keys(tensors: Mapping[str, Tensor], head_name: str | None) -> dict[str, Tensor]:
    """Leave the head out, and of an exported version take what stands under `backbone.`."""
    if tensors and all(name.startswith(("backbone.", "head.")) for name in tensors):
        exported = {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
        if exported:
            return exported
    head = {f"{head_name}.weight", f"{head_name}.bias"}
    return {name: tensor for name, tensor in tensors.items() if name not in head}
