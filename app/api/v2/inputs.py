"""From an input tensor to the payloads that models take, one a row.

A features model takes `features`, FP32 or FP64, (inputs, size). An image model takes `image`: BYTES, (inputs,), each
a PNG, JPEG or WebP file, in JSON as base64; or UINT8, (inputs, channels, size, size), decoded already and of the
model's own size. Such pixels are kept as a PNG, which loses nothing, so that they can be labelled later.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import chain
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.api.limits import ITEMS
from app.api.payloads import Payload, payload, require_kind
from app.api.v2.message import Sent, elements
from app.errors import InvalidItem
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput, ImageInput

Shape = tuple[int, ...]  # of one row


def rows_of(spec: NetworkSpec) -> dict[str, Shape]:
    """Say which datatypes the model takes, each with the shape of a row of it; the first is the one to advertise."""
    given = spec.input
    if isinstance(given, ImageInput):
        return {"BYTES": (), "UINT8": (given.channels, given.size, given.size)}
    return {"FP32": (given.size,), "FP64": (given.size,)}


def contents_of(sent: Sequence[Sent], spec: NetworkSpec) -> list[bytes]:
    """Give the payloads, in the order of the rows; InvalidItem for a tensor that is not one the model takes."""
    name = spec.input.kind
    if [one.tensor.name for one in sent] != [name]:
        raise InvalidItem("inputs", f"Expected one input, named `{name}`; got {len(sent)}, or one of another name.")
    (one,) = sent
    tensor = one.tensor
    rows = rows_of(spec)
    if tensor.datatype not in rows:
        raise InvalidItem("datatype", f"{name}: expected a tensor of {' or '.join(rows)}; got another datatype.")
    if tensor.parameters is not None and tensor.parameters.shared_memory_region is not None:
        raise InvalidItem("shared_memory", f"{name}: expected the tensor with the request; got a shared memory region.")
    if (one.raw is None) == (tensor.data is None):
        which = "both" if one.raw is not None else "neither"
        raise InvalidItem("data", f"{name}: expected either `data` or bytes after the JSON part; got {which}.")
    row = rows[tensor.datatype]
    if not tensor.shape or tuple(tensor.shape[1:]) != row or not 1 <= tensor.shape[0] <= ITEMS:
        raise InvalidItem(
            "shape",
            f"{name}: expected a tensor of {tensor.datatype} of shape {[-1, *row]}, with 1 to {ITEMS} rows; "
            f"got {tensor.shape}.",
        )
    return _READERS[tensor.datatype](one, spec.input)


def _features(one: Sent, _: ImageInput | FeaturesInput) -> list[bytes]:
    tensor = one.tensor
    if one.raw is None:
        values: NDArray[Any] = _numbers(tensor.name, tensor.data, tensor.shape, int, float)
    else:
        values = _buffer(one, "<f4" if tensor.datatype == "FP32" else "<f8")
    with np.errstate(invalid="ignore"):  # what is no number is told of where the payload is decoded
        return [row.tobytes() for row in values.reshape(tensor.shape).astype("<f8", copy=False)]


def _files(one: Sent, given: ImageInput | FeaturesInput) -> list[bytes]:
    count = one.tensor.shape[0]
    if one.raw is not None:
        files = [Payload("image", file) for file in elements(one.raw, count)]
    else:
        texts = _flat(one.tensor.name, one.tensor.data, one.tensor.shape, str)
        files = [found for text in texts if (found := payload(text, None, None)) is not None]
    return [require_kind(file, given.kind) for file in files]


def _pixels(one: Sent, _: ImageInput | FeaturesInput) -> list[bytes]:
    tensor = one.tensor
    if one.raw is None:
        levels = _flat(tensor.name, tensor.data, tensor.shape, int)
        if min(levels) < 0 or max(levels) > 255:
            raise InvalidItem("data", f"{tensor.name}: expected whole numbers from 0 to 255; got one beyond.")
        values: NDArray[Any] = np.array(levels, dtype=np.uint8)
    else:
        values = _buffer(one, "u1")
    return [png_of(pixels) for pixels in values.reshape(tensor.shape)]


_READERS: dict[str, Callable[[Sent, ImageInput | FeaturesInput], list[bytes]]] = {
    "FP32": _features,
    "FP64": _features,
    "BYTES": _files,
    "UINT8": _pixels,
}


def png_of(pixels: NDArray[np.uint8]) -> bytes:
    """Give (channels, size, size) as a PNG, packed fast rather than small."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _buffer(one: Sent, dtype: str) -> NDArray[Any]:
    assert one.raw is not None
    expected = prod(one.tensor.shape) * np.dtype(dtype).itemsize
    if len(one.raw) != expected:
        raise InvalidItem(
            "data",
            f"{one.tensor.name}: a tensor of {one.tensor.datatype} of shape {one.tensor.shape} has {expected} bytes; "
            f"got {len(one.raw)}.",
        )
    return np.frombuffer(one.raw, dtype=dtype)


def _numbers(name: str, data: Any, shape: Sequence[int], *kinds: type) -> NDArray[np.float64]:
    try:
        return np.array(_flat(name, data, shape, *kinds), dtype="<f8")
    except OverflowError:
        raise InvalidItem("data", f"{name}: one of the numbers of `data` is too large.") from None


def _flat(name: str, data: Any, shape: Sequence[int], *kinds: type) -> list[Any]:
    """Give the values of a tensor in JSON, which may be nested as its shape is, or flat."""
    values = data if isinstance(data, list) else []
    if values and isinstance(values[0], list):
        for level, length in enumerate(shape[1:], start=1):
            fits = len(values) == prod(shape[:level])
            if not fits or not all(isinstance(one, list) and len(one) == length for one in values):
                raise _misfit(name, shape)
            values = list(chain.from_iterable(values))
    if len(values) != prod(shape):
        raise _misfit(name, shape)
    if not set(map(type, values)) <= set(kinds):
        words = "texts, each a file in base64" if kinds == (str,) else "numbers" if float in kinds else "whole numbers"
        raise InvalidItem("data", f"{name}: expected `data` to hold {words}; got something else among them.")
    return values


def _misfit(name: str, shape: Sequence[int]) -> InvalidItem:
    return InvalidItem("data", f"{name}: `data` does not hold {prod(shape)} values in the shape {list(shape)}.")
