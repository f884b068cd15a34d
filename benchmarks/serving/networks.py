"""The two networks and how their inputs are read, the same for every system: loaded in each one's own environment.

Weights and items are written once by `reference.py` into a folder that BENCH_SHARED names.
"""

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

CLASSES = 10
FEATURES = 784
SIZE = 64


def bare(model: str, classes: int) -> nn.Module:
    """The architecture with torch's own random weights."""
    if model == "resnet18":
        import torchvision  # noqa: PLC0415  the MLP needs it not

        network: nn.Module = torchvision.models.resnet18(num_classes=classes)
        return network
    return nn.Sequential(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, classes))


def load(model: str, dtype: str) -> nn.Module:
    """The network as it is served: in eval mode, pictures with channels last, in the type asked for."""
    network = bare(model, CLASSES)
    network.load_state_dict(torch.load(weights_file(model), weights_only=True))
    network = network.eval().to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    return network.to(memory_format=torch.channels_last) if model == "resnet18" else network


def weights_file(model: str) -> Path:
    return Path(os.environ["BENCH_SHARED"]) / f"{model}.pt"


def decode(content: bytes) -> Tensor:
    """A JPEG to (3, size, size) uint8, with Pillow."""
    return torch.from_numpy(np.array(Image.open(BytesIO(content)).convert("RGB"))).permute(2, 0, 1)


def pictures(items: Sequence[Tensor], dtype: str) -> Tensor:
    """Stack decoded pictures, normalised to mean 0.5 and deviation 0.5: (batch, 3, size, size), channels last."""
    batch = torch.stack(list(items)).to(torch.bfloat16 if dtype == "bf16" else torch.float32)
    return batch.div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)


def vectors(items: Sequence[Sequence[float]], dtype: str) -> Tensor:
    """Stack vectors: (batch, features)."""
    batch = torch.from_numpy(np.array(items, dtype=np.float32))
    return batch.to(torch.bfloat16) if dtype == "bf16" else batch


class Served:
    """What a peer's server calls: payloads in, label and score out."""

    def __init__(self, model: str, dtype: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = model
        self._dtype = dtype
        self._network = load(model, dtype)
        with torch.inference_mode():  # the first passes are slow; no request should meet them
            for rows in (1, 2, 8, 32):
                shape = (3, SIZE, SIZE) if model == "resnet18" else (FEATURES,)
                blank = torch.zeros(rows, *shape, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32)
                self._network(blank)

    def decode(self, payload: bytes | Sequence[float]) -> Tensor | Sequence[float]:
        """One payload by itself."""
        return decode(payload) if self._model == "resnet18" else payload  # type: ignore[arg-type, return-value]

    def answer(self, decoded: Sequence[Tensor | Sequence[float]]) -> list[dict[str, float]]:
        """Ask the network about a batch."""
        collate = pictures if self._model == "resnet18" else vectors
        with torch.inference_mode():
            scores = self._network(collate(decoded, self._dtype)).float().softmax(1)  # type: ignore[operator, arg-type]
            best = scores.max(1)
        return [
            {"label": label, "score": score}
            for label, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


def resnet18(num_classes: int) -> nn.Module:
    """The builder that the product is given: the same layers below a head of its own."""
    return _with_weights("resnet18", num_classes)


def mlp(num_classes: int) -> nn.Module:
    """The builder that the product is given for vectors."""
    return _with_weights("mlp", num_classes)


def _with_weights(model: str, classes: int) -> nn.Module:
    network = bare(model, classes)
    head = "fc." if model == "resnet18" else "2."
    weights = torch.load(weights_file(model), weights_only=True)
    network.load_state_dict({k: v for k, v in weights.items() if not k.startswith(head)}, strict=False)
    return network
