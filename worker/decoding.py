"""Decoded inputs, kept between updates: rehearsal and judging meet the same samples again and again.

Called by the worker's update. Knows nothing of labels or sides.
"""

from collections import OrderedDict
from typing import Protocol

from torch import Tensor

from app.networks.preprocessor import preprocessor_for
from app.networks.spec import NetworkSpec

CACHE_BYTES = 256 << 20


class Content(Protocol):
    """A sample's bytes and their digest."""

    @property
    def content_digest(self) -> str: ...
    @property
    def content(self) -> bytes: ...


class Labelled(Content, Protocol):
    """A content with its class."""

    @property
    def label_id(self) -> int: ...


class Decoder:
    """Decodes contents; the newest `limit` bytes of tensors stay at hand. For one thread."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._held = 0
        self._items: OrderedDict[tuple[str, str, bool], Tensor] = OrderedDict()

    def decode(self, spec: NetworkSpec, content: Content) -> Tensor:
        """Decode as the spec's preprocessor does; the tensor is shared, do not change it."""
        key = (content.content_digest, repr(spec.input), spec.weights is None)
        item = self._items.get(key)
        if item is not None:
            self._items.move_to_end(key)
            return item
        item = preprocessor_for(spec).decode(content.content)
        self._items[key] = item
        self._held += item.nbytes
        while self._held > self._limit and len(self._items) > 1:
            self._held -= self._items.popitem(last=False)[1].nbytes
        return item
