"""Pretrained files from outside made into base weights: read without running anything in them, kept by digest.

Called by `perennial weights add`. Imports torch.
"""

from pathlib import Path

import torch
from torch import Tensor

from app.errors import Invalid, PerennialError
from app.networks.serialization import from_bytes, to_bytes
from app.settings import Settings
from app.storage.weights import WeightStore


def add(file: Path, settings: Settings) -> str:
    """Store a state dict; the answer, `sha256:…`, is its name. Raises Invalid where the file holds none."""
    if not file.is_file():
        raise Invalid(f"There is no file {str(file)!r}.")
    tensors = _read(file)
    if not tensors:
        raise Invalid(f"{str(file)!r} holds no tensors.")
    return WeightStore(settings.weights_dir).add_base(to_bytes(tensors))


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        try:
            return from_bytes(file.read_bytes())
        except PerennialError as error:
            raise Invalid(f"{str(file)!r} is no safetensors file that can be used: {error}") from error
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes provoke
        raise Invalid(
            f"{str(file)!r} cannot be read as a file of weights alone; files that hold whole Python objects are "
            "refused, since reading them would run what they say. Save the network's state_dict() instead."
        ) from error
    # A checkpoint often wraps its weights, and DataParallel puts `module.` before each name.
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise Invalid(f"{str(file)!r} holds no state dict: expected names with a tensor each.")
    return {str(name).removeprefix("module."): value.contiguous() for name, value in state.items()}
