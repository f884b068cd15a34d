"""Weights made elsewhere: read from a file a user brings, or fetched from torchvision's own address.

`perennial weights add` calls `read_weights_file` and stores what it gives as safetensors. Pickles are read without
running what they hold. Knows nothing of where base weights are kept.
"""

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from app.errors import Corrupt, InvalidNetwork
from app.networks.serialization import from_bytes

_PICKLES = {".pth", ".pt", ".th"}
_UNREADABLE = (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, pickle.UnpicklingError)
"""What torch.load raises on files that are damaged or hold more than tensors."""


def read_weights_file(path: Path) -> dict[str, Tensor]:
    """Read a state dict from `.safetensors`, or from `.pth`, `.pt`, `.th` without running code.

    A dict around it under "state_dict" (or "model") and the `module.` of data-parallel training are taken off.
    Tensors come contiguous, apart from each other and on the CPU. InvalidNetwork says what is wrong.
    """
    suffix = path.suffix.lower()
    if suffix != ".safetensors" and suffix not in _PICKLES:
        raise InvalidNetwork(f"{path.name}: expected a .safetensors, .pth, .pt or .th file.")
    try:
        tensors = _tensors(from_bytes(path.read_bytes()) if suffix == ".safetensors" else _unpickled(path), path.name)
    except OSError as error:
        raise InvalidNetwork(f"{path} cannot be read: {error.strerror or error}.") from error
    except Corrupt as error:
        raise InvalidNetwork(f"{path.name} is no safetensors file: {error.why}.") from error
    return tensors


def fetch_imagenet(architecture: str, *, download: bool) -> Mapping[str, Tensor]:
    """Give torchvision's own weights for an architecture, from its cache or its address.

    `download` is the setting `weights_download`: without it nothing is fetched. InvalidNetwork says what to do.
    """
    import torchvision  # noqa: PLC0415  it takes five seconds, which most models need not wait for

    instead = "Bring a file in with `perennial weights add FILE` and name it by the digest that it prints."
    try:
        weights = torchvision.models.get_model_weights(architecture).DEFAULT
    except ValueError as error:
        raise InvalidNetwork(
            f'There are no "imagenet" weights for {architecture!r}; choose weights null, or a torchvision '
            f"classifier. {instead}"
        ) from error
    if not download:
        raise InvalidNetwork(
            f'"imagenet" weights for {architecture!r} are not fetched: PERENNIAL_WEIGHTS_DOWNLOAD is off. {instead}'
        )
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except _UNREADABLE as error:
        raise InvalidNetwork(
            f'"imagenet" weights for {architecture!r}: the file in {torch.hub.get_dir()} is damaged. Delete it and '
            f"try again. {instead}"
        ) from error
    except OSError as error:  # of the network too
        raise InvalidNetwork(
            f'"imagenet" weights for {architecture!r} cannot be fetched: {error}. {instead}'
        ) from error
    return _tensors(state, f"imagenet:{architecture}")


def base_weights_from(read: Callable[[str], bytes], *, download: bool) -> Callable[[str], Mapping[str, Tensor]]:
    """Give what `build` asks for base weights: `read` maps "sha256:<hex>" to the bytes that were added."""

    def resolve(source: str) -> Mapping[str, Tensor]:
        if source.startswith("imagenet:"):
            return fetch_imagenet(source.removeprefix("imagenet:"), download=download)
        return from_bytes(read(source))

    return resolve


def _unpickled(path: Path) -> object:
    try:
        with warnings.catch_warnings():  # a command's only thread; old files warn of their own format
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise InvalidNetwork(
            f"{path.name} cannot be read as weights alone: it is damaged, or holds more than tensors. Save "
            "network.state_dict() with torch.save, or as safetensors, and add that."
        ) from error


def _tensors(state: object, name: str) -> dict[str, Tensor]:
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise InvalidNetwork(f"{name} holds no state dict; expected names and tensors, as state_dict() gives them.")
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
        if not isinstance(key, str) or not plain:
            raise InvalidNetwork(f"{name}: {key!r} is no plain tensor; expected names and tensors alone.")
        # A copy of its own: tensors that share memory cannot be saved as safetensors.
        tensors[key] = value.detach().to("cpu", copy=True).contiguous()
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors
