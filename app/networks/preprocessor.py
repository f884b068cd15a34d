"""From payload bytes to tensors: one object for the server, the worker and the check, so that they cannot differ.

`preprocessor_for` chooses it by the spec's input. Knows nothing of HTTP or of where payloads are kept.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from app.errors import InvalidItem
from app.networks.features import FeaturesPreprocessor
from app.networks.images import ImagePreprocessor
from app.networks.spec import NetworkSpec
from app.recipe import ImageInput


class Preprocessor(Protocol):
    """Safe to call from several threads: it holds no state."""

    def check(self, content: bytes) -> None:
        """Raise InvalidItem with a stable code if the payload cannot be used; what passes can be decoded."""

    def decode(self, content: bytes) -> Tensor:
        """Turn one payload into a tensor without a batch dimension; checks it on the way, so it raises the same."""

    def decode_many(self, contents: Sequence[bytes]) -> list[Tensor | InvalidItem]:
        """Decode each, sooner than one by one; in the place of one that cannot be used stands what `decode` raises."""

    def stacked(self, items: Sequence[Tensor]) -> Tensor:
        """Stack decoded items as they are, (batch, …): the least that has to travel to a device."""

    def normalised(self, stacked: Tensor) -> Tensor:
        """Bring a stacked batch, on any device, to what a network takes: float32, (batch, …)."""

    def batch(self, items: Sequence[Tensor]) -> Tensor:
        """Stack decoded items and normalise them."""


def preprocessor_for(spec: NetworkSpec) -> Preprocessor:
    """Choose the preprocessor of the spec's input."""
    if isinstance(spec.input, ImageInput):
        return ImagePreprocessor(spec.input, pretrained=spec.weights is not None)
    return FeaturesPreprocessor(spec.input)
