"""Decoded inputs, kept between updates: rehearsal and judging meet the same samples again and again.

Called by the worker's update. Knows nothing of labels or sides.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from app.networks.preprocessor import preprocessor_for
from app.networks.spec import NetworkSpec
from worker.learning.samples import chunks

CACHE_BYTES = 256 << 20
READ_AT_ONCE = 32
"""Inputs read and decoded together: photos of some megabytes each must not pile up."""


class Content(Protocol):
    """A sample and the digest of its bytes."""

    @property
    def sample_id(self) -> str: ...
    @property
    def content_digest(self) -> str: ...


class Labelled(Content, Protocol):
    """A content with its class."""

    @property
    def label_id(self) -> int: ...


class Decoder:
    """Decodes contents; the newest `limit` bytes of tensors stay at hand. For one thread."""

    def __init__(self, read: Callable[[Collection[str]], Mapping[str, bytes]], limit: int = CACHE_BYTES) -> None:
        """`read` gives the bytes of samples by their ids; one that is gone is missing in its answer."""
        self._read = read
        self._limit = limit
        self._held = 0
        self._items: OrderedDict[tuple[str, str, bool], Tensor] = OrderedDict()

    def decode(self, spec: NetworkSpec, contents: Sequence[Content]) -> dict[str, Tensor]:
        """Decode as the spec's preprocessor does, by sample id; the tensors are shared, do not change them.

        A sample whose bytes are gone (withdrawn since it was listed) is missing in the answer.
        """
        preprocessor = preprocessor_for(spec)
        found: dict[str, Tensor] = {}
        missing: list[Content] = []
        for content in contents:
            item = self._items.get(self._key(spec, content))
            if item is None:
                missing.append(content)
            else:
                self._items.move_to_end(self._key(spec, content))
                found[content.sample_id] = item
        for some in chunks(missing, READ_AT_ONCE):
            read = self._read([content.sample_id for content in some])
            for content in some:
                if content.sample_id in read:
                    item = preprocessor.decode(read[content.sample_id])
                    found[content.sample_id] = item
                    self._keep(self._key(spec, content), item)
        return found

    def _key(self, spec: NetworkSpec, content: Content) -> tuple[str, str, bool]:
        return content.content_digest, repr(spec.input), spec.weights is None

    def _keep(self, key: tuple[str, str, bool], item: Tensor) -> None:
        before = self._items.pop(key, None)
        self._held += item.nbytes - (before.nbytes if before is not None else 0)
        self._items[key] = item
        while self._held > self._limit and len(self._items) > 1:
            self._held -= self._items.popitem(last=False)[1].nbytes
