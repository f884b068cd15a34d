"""Weights as bytes and back: safetensors only, and nothing is believed before it is checked.

The weight store keeps the files and their digests; here is only how one is mapped.
"""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from app.errors import Corrupt
from app.networks.network import Network

MAX_HEADER_BYTES = 1 << 20
BACKBONE, HEAD = "backbone.", "head."
"""What the names of a network's state begin with."""

_DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""As safetensors calls them."""

ALIGNMENT = 64
"""Bytes: where tensors begin that torch makes itself.

A product over numbers that begin elsewhere may be computed in another order, so that its last bits differ: on one AMD
processor it was, for a product with one column, wherever they did not begin at a multiple of 16 bytes.
"""

_WHAT = "A weight file"
_CHUNK = 1 << 20

Pause = Callable[[], object]
"""Called between the steps of long work: whoever loads beside predictions waits here for as long as it sees fit."""


def go_on() -> None:
    """Pause for nobody."""


def to_bytes(tensors: Mapping[str, Tensor], pause: Pause = go_on) -> bytearray:
    """Give the tensors as safetensors bytes, the same for the same tensors; their device is not kept.

    Laid down so that as many as can be begin at a multiple of ALIGNMENT. The library's own `save` does not care for
    that, and makes three copies of all bytes without a stop: for 45 MB that is a fifth of a second. Raises KeyError
    for a type of numbers that weights do not have.
    """
    ordered = sorted(tensors.items(), key=lambda item: (-_evenness(item[1].nbytes), item[0]))
    about: dict[str, object] = {}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        about[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    data = bytearray(8 + len(header) + end)
    at = 8 + len(header)
    data[:at] = len(header).to_bytes(8, "little") + header
    for _, tensor in ordered:
        for piece in _raw(tensor):
            data[at : at + len(piece)] = piece
            at += len(piece)
            pause()
    return data


def from_bytes(data: bytes | bytearray) -> dict[str, Tensor]:
    """Read safetensors bytes; Corrupt if the header is oversized, names a key twice or does not fit the data."""
    if len(data) < 8:
        raise Corrupt(_WHAT, "it is shorter than its header")
    length = _header_length(data[:8])
    return _checked(data[8 : 8 + length], lambda: safetensors.torch.load(bytes(data)))


def mapped(path: Path) -> dict[str, Tensor]:
    """Give a file's tensors without reading them: pages come when they are touched, one copy for all processes.

    Raises what `from_bytes` does. Who writes to a tensor changes a page of its own, never the file. The file may be
    renamed or removed afterwards, but must not be cut short while a tensor lives. No file handle is kept.

    A tensor that does not begin at a multiple of ALIGNMENT is copied to where one does, so that the same weights give
    the same bits wherever they lie. Of files as `to_bytes` makes them these are few and small.
    """
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise Corrupt(_WHAT, "it is shorter than its header")
        header = file.read(_header_length(start))
    tensors = _checked(header, lambda: safetensors.torch.load_file(path))
    return {name: tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor for name, tensor in tensors.items()}


def _header_length(start: bytes | bytearray) -> int:
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER_BYTES:
        raise Corrupt(_WHAT, f"its header claims {length} bytes, at most {MAX_HEADER_BYTES} are allowed")
    return length


def _checked(header: bytes | bytearray, read: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    try:
        json.loads(header, object_pairs_hook=_unique)
        return read()
    except (SafetensorError, ValueError, KeyError, RuntimeError, RecursionError, TypeError) as error:
        raise Corrupt(_WHAT, f"its header cannot be read ({error})") from error


def load_weights(network: Network, data: bytes | bytearray) -> None:
    """Put saved weights into the network; on Corrupt the network is as it was.

    Keys, shapes and dtypes must be exactly the network's own, and every number finite.
    """
    load_tensors(network, from_bytes(data))


def load_tensors(network: Network, tensors: Mapping[str, Tensor]) -> None:
    """Put a whole state into the network, as `load_weights` does."""
    own = network.state_dict()
    require_fit(own, tensors)
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def require_fit(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], optional: Collection[str] = (), pause: Pause = go_on
) -> None:
    """Raise Corrupt unless names, shapes and dtypes are those of `own` and every number is finite.

    Names in `optional` may be missing.
    """
    missing, foreign = sorted(own.keys() - tensors.keys() - set(optional)), sorted(tensors.keys() - own.keys())
    if missing or foreign:
        raise Corrupt(_WHAT, f"it does not fit the network: missing {listed(missing)}, not expected {listed(foreign)}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
            raise Corrupt(
                _WHAT,
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"the network has {own[name].dtype} {tuple(own[name].shape)}",
            )
        for part in _parts(tensor):
            if not all(bool(extreme.isfinite()) for extreme in part.aminmax()):
                raise Corrupt(_WHAT, f"{name} holds a number that is not finite")
            pause()


def backbone_digest(network: Network, pause: Pause = go_on) -> str:
    """Give the sha256 over the backbone's names, shapes, dtypes and values: equal if and only if features are."""
    return tensors_digest(network.backbone.state_dict(), pause)


def tensors_digest(tensors: Mapping[str, Tensor], pause: Pause = go_on) -> str:
    """Give the sha256 over names, shapes, dtypes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        for piece in _raw(tensor):
            digest.update(piece)
            pause()
    return digest.hexdigest()


def listed(names: list[str], most: int = 8) -> str:
    """Name them in one line, at most so many."""
    rest = len(names) - most
    return (", ".join(names[:most]) or "none") + (f" and {rest} more" if rest > 0 else "")


def _evenness(size: int) -> int:
    """Give the greatest power of two that a size in bytes is a multiple of, up to ALIGNMENT."""
    return math.gcd(size, ALIGNMENT)


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """Cut a tensor of floats into flat pieces; their extremes, unlike `isfinite`, take no memory of its size."""
    if tensor.is_floating_point() and tensor.numel():
        yield from torch.split(tensor.detach().reshape(-1), _CHUNK)


def _raw(tensor: Tensor) -> Iterator[memoryview]:
    """Cut a tensor's bytes, in the order of its elements, into pieces; nothing is copied of one that lies so."""
    raw = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy().data
    for start in range(0, len(raw), _CHUNK):
        yield raw[start : start + _CHUNK]


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError("a key stands twice")
    return dict(pairs)
