"""Pretrained files from outside made into base weights, kept by digest.

Called by `perennial weights add`. Imports torch.
"""

from pathlib import Path

from app.errors import Invalid
from app.networks.pretrained import read_weights_file
from app.networks.serialization import to_bytes
from app.settings import Settings
from app.storage.weights import WeightStore


def add(file: Path, settings: Settings) -> str:
    """Store a state dict; the answer, `sha256:…`, is its name. Raises Invalid where the file holds none."""
    if not file.is_file():
        raise Invalid(f"There is no file {str(file)!r}.")
    return WeightStore(settings.weights_dir).add_base(to_bytes(read_weights_file(file)))
