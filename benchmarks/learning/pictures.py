"""MNIST and Fashion-MNIST as tensors, read out of their archive without unpacking anything.

Called by the protocols' runner. Knows nothing of networks or of how the pictures will be taught.
"""

import gzip
import tarfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
_HELD_OUT = 10_000
_FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


@dataclass(frozen=True)
class Pictures:
    """What is taught and what is asked: (n, 784) bytes, (n,) classes 0 to 9."""

    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor

    def held_out(self) -> "Pictures":
        """The same without the test: 10,000 of the training pictures are asked instead, and are not taught."""
        order = torch.randperm(len(self.targets), generator=torch.Generator().manual_seed(20_240_229))
        asked, taught = order[:_HELD_OUT], order[_HELD_OUT:].sort().values
        return Pictures(self.inputs[taught], self.targets[taught], self.inputs[asked], self.targets[asked])


def load(name: str, folder: Path = SHARED) -> Pictures:
    """Read `mnist` or `fashion_mnist` from `<name>.tar`; raises SystemExit that says what is missing."""
    archive = folder / f"{name}.tar"
    if not archive.is_file():
        raise SystemExit(f"{archive} is not there. Name the folder that holds {name}.tar with --data-dir.")
    with tarfile.open(archive) as tar:
        parts = [
            _idx(tar, f"{_FOLDERS[name]}/raw/{part}.gz")
            for part in (
                "train-images-idx3-ubyte",
                "train-labels-idx1-ubyte",
                "t10k-images-idx3-ubyte",
                "t10k-labels-idx1-ubyte",
            )
        ]
    inputs, targets, test_inputs, test_targets = parts
    return Pictures(inputs.flatten(1), targets.long(), test_inputs.flatten(1), test_targets.long())


def ready(pictures: Tensor) -> Tensor:
    """Bytes as numbers between 0 and 1, as every protocol here feeds them."""
    return pictures.float().div_(255)


def _idx(tar: tarfile.TarFile, member: str) -> Tensor:
    """One file of the idx form: two zeros, the type (8: bytes), the number of dimensions, their sizes, the bytes."""
    stream = tar.extractfile(member)
    if stream is None:
        raise SystemExit(f"{tar.name!r} does not hold {member}.")
    data = gzip.decompress(stream.read())
    dimensions = data[3]
    sizes = [int.from_bytes(data[4 + 4 * n : 8 + 4 * n], "big") for n in range(dimensions)]
    return torch.frombuffer(bytearray(data[4 + 4 * dimensions :]), dtype=torch.uint8).reshape(sizes)
