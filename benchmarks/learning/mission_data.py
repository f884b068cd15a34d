"""CIFAR-10 as JPEG files and the labels that people gave it, Fashion-MNIST as PNG files: what a client would post.

Called by the rows of the mission's recipes. Reads `shared/data` beside the repository; knows nothing of networks.
"""

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.cli.demo.datasets import FASHION, Item, fashion_mnist

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NOISES = {"aggre": "aggre_label", "random1": "random_label1", "worse": "worse_label"}

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Picture:
    """A file's bytes, its place in the data set, its class as it is taught, and its class as it is."""

    content: bytes
    place: int
    label: int
    truth: int


def cifar(part: str, chosen: Sequence[int], folder: Path = SHARED, noise: str | None = None) -> list[Picture]:
    """Pictures `chosen` of the part `train` or `test`, in that order; `noise` names the labels taught, of `NOISES`."""
    with np.load(_there(folder / "cifar10_jpeg75.npz")) as file:
        data, ends, labels = file[f"{part}_jpeg"], file[f"{part}_off"], file[f"{part}_label"]
    taught = labels if noise is None else _people(folder, noise)
    return [Picture(data[ends[i] : ends[i + 1]].tobytes(), i, int(taught[i]), int(labels[i])) for i in map(int, chosen)]


def some_of_each(part: str, count: int, seed: int, folder: Path = SHARED) -> Integers:
    """Indices of `count` pictures, as many of each class, shuffled."""
    with np.load(_there(folder / "cifar10_jpeg75.npz")) as file:
        labels = file[f"{part}_label"]
    rng = np.random.default_rng(seed)
    found = [rng.permutation(np.flatnonzero(labels == label))[: count // len(CIFAR)] for label in range(len(CIFAR))]
    return rng.permutation(np.concatenate(found))


def by_label(pictures: Sequence[Picture]) -> list[Picture]:
    """All of the first class as taught, then all of the second: the order that is hardest not to forget in."""
    return sorted(pictures, key=lambda one: one.label)


def fashion(taught: int, test: int, seed: int = 0, folder: Path = SHARED) -> tuple[list[Picture], list[Picture]]:
    """Fashion-MNIST's pictures as PNG files: to be taught, to be asked."""
    _there(folder / "fashion_mnist.tar")
    data = fashion_mnist(folder, seed, taught, test)
    return _pictures(data.taught), _pictures(data.test)


def _pictures(items: Sequence[Item]) -> list[Picture]:
    labels = [FASHION.index(item.label) for item in items]
    contents = [b64decode(item.input["image"]) for item in items]
    return [
        Picture(content, place, label, label)
        for place, (content, label) in enumerate(zip(contents, labels, strict=True))
    ]


def _people(folder: Path, noise: str) -> Integers:
    with np.load(_there(folder / "cifar10n_human_labels.npz")) as file:
        return file[NOISES[noise]].astype(np.int64)


def _there(path: Path) -> Path:
    if not path.is_file():
        raise SystemExit(f"{path} is not there; this row needs it. Name its folder with --data-dir.")
    return path
