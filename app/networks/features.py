"""Vectors of numbers: their payload form and how they become tensors.

The payload is float64, little-endian, without a header. Scales stay as they came: `Standardize` learns them.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from app.errors import InvalidItem
from app.recipe import FeaturesInput

_LARGEST = float(np.finfo(np.float32).max)
_NOT_NUMBERS = "Expected a flat list of numbers, such as [5.1, 3.5, 1.4]."


def features_content(values: Sequence[float]) -> bytes:
    """Give the payload of a vector; InvalidItem if one of its entries is no number."""
    try:
        return _packed(len(values)).pack(*values)
    except (TypeError, struct.error, OverflowError) as error:
        raise InvalidItem("not_numbers", _NOT_NUMBERS) from error


@lru_cache(maxsize=64)
def _packed(size: int) -> struct.Struct:
    return struct.Struct(f"<{size}d")


class FeaturesPreprocessor:
    def __init__(self, shape: FeaturesInput) -> None:
        self._size = shape.size

    def check(self, content: bytes) -> None:
        self.decode(content)

    def decode(self, content: bytes) -> Tensor:
        """Give (size,) float32 on its raw scale. Codes: wrong_size, not_finite, out_of_range."""
        if len(content) != 8 * self._size:
            raise InvalidItem(
                "wrong_size",
                f"Expected {self._size} numbers, got {len(content) / 8:g}. "
                "Send one number for each feature, in the order the model was taught.",
            )
        values = np.frombuffer(content, dtype="<f8")
        if np.abs(values).max(initial=0.0) <= _LARGEST:  # never true of what is not a number
            return torch.from_numpy(values.astype(np.float32))  # (size,)
        usable = np.isfinite(values)
        if not usable.all():
            at = int(np.argmin(usable))
            raise InvalidItem(
                "not_finite",
                f"Number {at} (counting from 0) is {values[at]}; expected finite numbers. "
                "Fill missing values with a number of your choice before sending.",
            )
        at = int(np.argmin(np.abs(values) <= _LARGEST))
        raise InvalidItem(
            "out_of_range", f"Number {at} (counting from 0) is {values[at]:g}; expected at most ±{_LARGEST:g}."
        )

    def decode_many(self, contents: Sequence[bytes]) -> list[Tensor | InvalidItem]:
        """Decode all at once when all can be used: then each item is a row of one block."""
        if len(contents) == 1:
            return [self._decoded(contents[0])]
        joined = b"".join(contents)
        if contents and len(joined) == 8 * self._size * len(contents) and len({*map(len, contents)}) == 1:
            values = np.frombuffer(joined, dtype="<f8").reshape(len(contents), self._size)
            if np.abs(values).max(initial=0.0) <= _LARGEST:
                return list(torch.from_numpy(values.astype(np.float32)).unbind())
        return [self._decoded(content) for content in contents]

    def stacked(self, items: Sequence[Tensor]) -> Tensor:
        """Stack to (batch, size) float32, still on raw scales; one alone is not copied, so it is the caller's own."""
        if len(items) == 1:
            return items[0].unsqueeze(0)
        return torch.stack(list(items)) if len(items) else torch.empty(0, self._size)

    def normalised(self, stacked: Tensor) -> Tensor:
        """Give the batch as it is: `Standardize` has learned the scales."""
        return stacked

    def batch(self, items: Sequence[Tensor]) -> Tensor:
        """Stack to (batch, size) float32, still on raw scales; a copy, which a network may change."""
        return torch.stack(list(items)) if len(items) else self.stacked(items)

    def _decoded(self, content: bytes) -> Tensor | InvalidItem:
        try:
            return self.decode(content)
        except InvalidItem as error:
            return error
