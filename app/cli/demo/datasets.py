"""What the demo and the benchmarks teach: real digits from scikit-learn, Fashion-MNIST from its own files.

Knows files and arrays, nothing of HTTP. Nothing is downloaded.
"""

import base64
import gzip
import struct
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from app.errors import Invalid

Bytes = npt.NDArray[np.uint8]

FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")


@dataclass(frozen=True)
class Item:
    """An input as the API takes it, and what it truly is."""

    input: dict[str, Any]
    label: str


@dataclass(frozen=True)
class Dataset:
    """Items to teach with, and a test part that is only ever asked, never taught."""

    name: str
    input: dict[str, Any]  # of the model
    labels: tuple[str, ...]  # in the order in which a shifted label is the next one
    taught: tuple[Item, ...]
    test: tuple[Item, ...]


def digits(seed: int = 0, test: int = 450) -> Dataset:
    """1,797 handwritten digits as 64 raw pixel values from 0 to 16."""
    pixels, targets = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(targets))
    items = tuple(Item({"features": pixels[i].tolist()}, str(targets[i])) for i in order)
    labels = tuple(str(digit) for digit in range(10))
    return Dataset("digits", {"kind": "features", "size": 64}, labels, items[test:], items[:test])


def fashion_mnist(folder: Path, seed: int = 0, taught: int | None = None, test: int | None = None) -> Dataset:
    """Fashion-MNIST as PNG files of 28 × 28 grey pixels. Raises Invalid when its files are not in the folder."""
    rng = np.random.default_rng(seed)
    parts = []
    for part, count in (("train", taught), ("t10k", test)):
        images = _idx(_file_of(folder, f"{part}-images-idx3-ubyte"))
        targets = _idx(_file_of(folder, f"{part}-labels-idx1-ubyte"))
        chosen = rng.permutation(len(targets))[:count]
        parts.append(tuple(Item({"image": _base64_png(images[i])}, FASHION[targets[i]]) for i in chosen))
    return Dataset("fashion", {"kind": "image", "size": 28, "channels": 1}, FASHION, parts[0], parts[1])


def png(grey: Bytes) -> bytes:
    """Write a grey picture (height, width) as a PNG file: a header, the rows unfiltered and deflated, an end."""
    height, width = grey.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grey)  # 0: the row is not filtered
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits of grey
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _base64_png(grey: Bytes) -> str:
    return base64.b64encode(png(grey)).decode()


def _file_of(folder: Path, name: str) -> bytes:
    """The bytes of an idx file: extracted, gzipped, or inside `fashion_mnist.tar`."""
    for path in (folder / name, folder / "FashionMNIST" / "raw" / name):
        if path.is_file():
            return path.read_bytes()
        if (zipped := path.with_name(f"{name}.gz")).is_file():
            return gzip.decompress(zipped.read_bytes())
    archive = folder / "fashion_mnist.tar"
    if archive.is_file():
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                if Path(member.name).name == f"{name}.gz" and (content := tar.extractfile(member)) is not None:
                    return gzip.decompress(content.read())
    raise Invalid(
        f"{folder} holds neither {name}, nor {name}.gz, nor a fashion_mnist.tar with it. "
        "Name the folder of the data set's files with --data-dir."
    )


def _idx(data: bytes) -> Bytes:
    """Read an idx file of bytes: two zeros, the type, the number of axes, their lengths (big-endian), the data."""
    axes = data[3]
    shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)
