"""Split Fashion-MNIST by a closed-form head over fixed features: nothing is remembered but three sums.

What the sums take in memory is at most what the same number of pictures would take. The features are fixed formulas:
no number in them was learned from any data, so they take no memory of their own.
"""

import math

import torch
from experiences import class_pairs
from pictures import Pictures, ready
from protocol import Figures, Protocol
from torch import Tensor
from torch.nn import functional

from worker.learning.closed_form import ClosedFormSettings, solve
from worker.learning.sums import Sums

_FEATURES = "edges and brightness"
_PICTURE_BYTES = 784
_BATCH = 1000

Shape = tuple[int, int, int, int]


def features(pictures: Tensor, shape: Shape) -> Tensor:
    """Describe ready pictures (n, 784) by how bright they are where, and how strong their edges are where.

    `shape` is: orientations of the edges, cells of a side in which their strength is averaged, and rows and columns of
    the grid in which brightness is averaged. The root of each mean brings large and small ones nearer to each other.
    In the manner of oriented-gradient histograms (Dalal and Triggs 2005). (n, orientations·cells² + rows·columns)
    """
    orientations, cells, rows, columns = shape
    squares = pictures.view(-1, 1, 28, 28)
    across = functional.pad(squares, (1, 1, 0, 0))
    down = functional.pad(squares, (0, 0, 1, 1))
    across, down = across[..., 2:] - across[..., :-2], down[..., 2:, :] - down[..., :-2, :]  # (n, 1, 28, 28)
    angles = torch.arange(orientations)[None, :, None, None] * (math.pi / orientations)
    edges = (across * angles.cos() + down * angles.sin()).abs()  # (n, orientations, 28, 28)
    means = [functional.adaptive_avg_pool2d(edges, cells), functional.adaptive_avg_pool2d(squares, (rows, columns))]
    return torch.cat([mean.flatten(1) for mean in means], 1).sqrt()


def summed(pictures: Pictures, seed: int, *, memory: int, shape: Shape, kind: str, strength: float) -> Figures:
    """Add the pictures once each, pair of classes after pair, and solve the head when all have come."""
    generator = torch.Generator().manual_seed(seed)
    orientations, cells, rows, columns = shape
    sums = Sums(orientations * cells**2 + rows * columns, _FEATURES)
    for experience in class_pairs(pictures, generator):
        for inputs, targets in experience.batches(_BATCH):
            sums.add(features(ready(inputs), shape), targets.tolist(), backbone=_FEATURES)
    if sums.nbytes > memory * _PICTURE_BYTES:
        raise SystemExit(f"The sums take {sums.nbytes} bytes, and {memory} pictures take {memory * _PICTURE_BYTES}.")
    head = solve(sums, ClosedFormSettings(kind, strength), range(10))
    answers = torch.cat(
        [
            (features(ready(part), shape) @ head.weight.T + head.bias).argmax(1)
            for part in pictures.test_inputs.split(_BATCH)
        ]
    )
    hits = int((answers == pictures.test_targets).sum())
    saved = sum(tensor.nbytes for tensor in sums.tensors().values())
    return {"accuracy": 100 * hits / len(answers), "bytes": sums.nbytes, "bytes saved": saved}


_CHOSEN: dict[int, tuple[Shape, str, float]] = {
    200: ((4, 5, 5, 7), "slda", 1e-4),
    500: ((4, 6, 8, 9), "ridge", 1e-3),
    1000: ((4, 7, 10, 11), "ridge", 1e-3),
}
_SHAPES: dict[int, tuple[Shape, ...]] = {
    200: ((4, 5, 5, 7), (2, 7, 6, 6), (3, 6, 5, 5)),
    500: ((4, 6, 8, 9), (3, 7, 8, 8), (5, 6, 6, 6)),
    1000: ((4, 7, 10, 11), (6, 6, 9, 9), (3, 8, 10, 11)),
}

PROTOCOLS = [
    Protocol(
        f"split-fashion-closed-form-{memory}",
        "fashion_mnist",
        summed,
        dict(zip(("shape", "kind", "strength"), _CHOSEN[memory], strict=True)) | {"memory": memory},
        f"{reference} (ER with tricks; joint 84.47)",
        reference,
        above=True,
        grid={"shape": _SHAPES[memory], "kind": ("ridge", "slda"), "strength": (1e-4, 1e-3, 1e-2)},
        chosen="held out",
    )
    for memory, reference in ((200, 76.07), (500, 80.11), (1000, 82.46))
]
