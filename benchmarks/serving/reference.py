"""What every system is given and asked: one set of weights, 64 items, and what the network itself says of each.

Runs in the project's own environment. The last layer is drawn as the product draws the rows of its labels, so that
the product, whose head is its own, serves the very same network.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import networks
import numpy as np
import torch
from PIL import Image
from system import Item
from torch import Tensor, nn

from app.networks.head import fresh_row

SEED = 0
ITEMS = 64
TOLERANCE = {"fp32": 0.002, "bf16": 0.08}
"""How far a system's score may lie from the network's: what another order of summation does, and bf16's eight bits."""


@dataclass(frozen=True)
class Reference:
    """Items of one model, and the scores of the network in fp32: (items, classes)."""

    model: str
    items: tuple[Item, ...]
    scores: Tensor

    def complaint(self, index: int, label: int, score: float, dtype: str) -> str | None:
        """What is wrong with an answer; None if it is the network's, or as near as its number format allows."""
        expected = self.scores[index]
        tolerance = TOLERANCE[dtype]
        near_best = float(expected[label]) >= float(expected.max()) - tolerance
        if near_best and abs(score - float(expected[label])) <= tolerance:
            return None
        best = int(expected.argmax())
        return f"item {index}: answered {label} ({score:.4f}); the network says {best} ({float(expected[best]):.4f})"


def write(shared: Path) -> dict[str, Reference]:
    """Write weights into the folder and give both references."""
    os.environ["BENCH_SHARED"] = str(shared)
    images = tuple(picture(number) for number in range(ITEMS))
    rows: tuple[Item, ...] = tuple(vector(number) for number in range(ITEMS))
    decoded = networks.pictures([networks.decode(one) for one in images], "fp32")
    made = {
        "resnet18": (images, lambda: decoded),
        "mlp": (rows, lambda: networks.vectors(rows, "fp32")),  # type: ignore[arg-type]
    }
    return {model: _reference(model, items, inputs, shared) for model, (items, inputs) in made.items()}


def _reference(model: str, items: tuple[Item, ...], inputs: Callable[[], Tensor], shared: Path) -> Reference:
    torch.save(weights(model, inputs()), shared / f"{model}.pt")
    with torch.inference_mode():
        return Reference(model, items, networks.load(model, "fp32")(inputs()).softmax(1))


def weights(model: str, inputs: Tensor) -> dict[str, Tensor]:
    """Random weights under which the items get different labels."""
    torch.manual_seed(SEED)
    network = networks.bare(model, networks.CLASSES)
    head = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        head.weight.copy_(
            torch.stack([fresh_row(head.in_features, SEED, label + 1) for label in range(head.out_features)])
        )
        head.bias.zero_()
        if model == "mlp":
            network[0].weight.mul_(8)  # type: ignore[index, operator]  far enough apart to tell answers by
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None  # a plain mean: the statistics of these very pictures
        network.train()(inputs)
    return network.state_dict()


def picture(number: int) -> bytes:
    """A JPEG of size 64 × 64: smooth colours with grain, as a photograph has."""
    draw = np.random.default_rng(number)
    coarse = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
        (64, 64), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(coarse).astype(np.float32) + draw.normal(0, 12, (64, 64, 3))
    out = BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def vector(number: int) -> list[float]:
    """784 numbers in [0, 1] with four decimals."""
    return [round(value, 4) for value in np.random.default_rng(1000 + number).random(networks.FEATURES).tolist()]
