"""From payload bytes to tensors: one object for the server, the worker and the check, so that they cannot differ.

`preprocessor_for` chooses it by the spec's input. Knows nothing of HTTP or of where payloads are kept.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

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

    def batch(self, items: Sequence[Tensor]) -> Tensor:
        """Stack decoded items and normalise them: float32, (batch, …), what a network takes."""


def preprocessor_for(spec: NetworkSpec) -> Preprocessor:
    """Choose the preprocessor of the spec's input."""
    if isinstance(spec.input, ImageInput):
        return ImagePreprocessor(spec.input, pretrained=spec.weights is not None)
    return FeaturesPreprocessor(spec.input)
