"""What backbones make of contents: from memory, from the store, or made now and kept.

Called by the lanes of a closed-form head. Knows nothing of labels or sums.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.recipe import ImageInput
from app.storage.features import FeatureStore
from app.storage.tables import Model
from worker.decoding import Content, Decoder
from worker.learning.failure import LearningFailed
from worker.learning.samples import chunks

CACHE_BYTES = 512 << 20
AT_ONCE = 32
"""Contents that go through the backbone together: between two such batches the fast lane may have its turn."""


class FeatureSource:
    """Gives features; the newest `limit` bytes of them stay at hand. For one thread."""

    def __init__(
        self,
        store: FeatureStore,
        decoder: Decoder,
        *,
        device: torch.device | str = "cpu",
        limit: int = CACHE_BYTES,
    ) -> None:
        """Pictures go through a copy of their backbone on `device`; others cost less than the way there."""
        self._store = store
        self._decoder = decoder
        self._device = torch.device(device)
        self._limit = limit
        self._placed: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()  # backbones' copies on the device
        self._held = 0
        self._items: OrderedDict[tuple[int, str, str], Tensor] = OrderedDict()

    def features(
        self,
        model: Model,
        network: Network,
        backbone: str,
        contents: Sequence[Content],
        between: Callable[[], None] = lambda: None,
    ) -> dict[str, Tensor]:
        """What the network's backbone, of that digest, makes of each content: digest → (width,) float32 on the CPU.

        A content whose bytes are gone is missing. Pictures' features are kept in the store, others are quicker made
        than read. `between` is called after each batch. Raises LearningFailed for numbers that are not finite.
        """
        stored = isinstance(network.spec.input, ImageInput)
        found, missing = self._at_hand(model, backbone, contents)
        if stored and missing:
            for digest, data in self._store.read(model.id, backbone, list(missing)).items():
                found[digest] = self._keep((model.id, backbone, digest), torch.from_numpy(_floats(data)))
                del missing[digest]
        for some in chunks(list(missing.values()), AT_ONCE):
            made = self._made(network, some)
            if stored:
                self._store.write(
                    model.id, backbone, {digest: row.numpy().astype("<f4").tobytes() for digest, row in made.items()}
                )
            for digest, row in made.items():
                found[digest] = self._keep((model.id, backbone, digest), row)
            between()
        return found

    def fed(
        self,
        model: Model,
        network: Network,
        backbone: str,
        made_by: str,
        contents: Sequence[Content],
        between: Callable[[], None] = lambda: None,
    ) -> dict[str, Tensor]:
        """What the network's head is fed of each, (head_width,); `made_by` names all that makes it.

        A power is taken of each content alone: in a batch its last bit may depend on the place in it, and a sample
        must go out of the sums by the numbers that it came in by.
        """
        found, missing = self._at_hand(model, made_by, contents)
        raw = self.features(model, network, backbone, list(missing.values()), between)
        device = network.head.weight.device
        for some in chunks(list(raw), AT_ONCE):
            with torch.no_grad():
                powers = [network.power(raw[digest][None].to(device)) for digest in some]  # (1, width) each
                rows = network.projection(torch.cat(powers)).cpu()
            for digest, row in zip(some, rows, strict=True):
                found[digest] = self._keep((model.id, made_by, digest), row.clone())
        return found

    def _at_hand(
        self, model: Model, made_by: str, contents: Sequence[Content]
    ) -> tuple[dict[str, Tensor], dict[str, Content]]:
        """What is in memory, by digest, and the contents that are not."""
        found: dict[str, Tensor] = {}
        missing: dict[str, Content] = {}
        for content in contents:
            key = (model.id, made_by, content.content_digest)
            item = self._items.get(key)
            if item is None:
                missing[content.content_digest] = content
            else:
                self._items.move_to_end(key)
                found[content.content_digest] = item
        return found, missing

    def inputs(self, network: Network, contents: Sequence[Content]) -> Tensor | None:
        """The contents as the network takes them, (batch, …); None without any."""
        decoded = self._decoder.decode(network.spec, contents)
        items = [decoded[content.sample_id] for content in contents if content.sample_id in decoded]
        return preprocessor_for(network.spec).batch(items) if items else None

    def _made(self, network: Network, contents: Sequence[Content]) -> dict[str, Tensor]:
        decoded = self._decoder.decode(network.spec, contents)
        there = [content for content in contents if content.sample_id in decoded]
        if not there:
            return {}
        batch = preprocessor_for(network.spec).batch([decoded[content.sample_id] for content in there])
        with torch.no_grad():
            rows = self._run(network, batch).float().cpu()  # (batch, width)
        for content, row in zip(there, rows, strict=True):
            if not bool(row.isfinite().all()):
                raise LearningFailed(
                    f"The backbone made numbers that are not finite of sample {content.sample_id}: withdraw the sample "
                    "if its input is extreme, or roll back to a version before the backbone learned."
                )
        return {content.content_digest: row.clone() for content, row in zip(there, rows, strict=True)}

    def _run(self, network: Network, batch: Tensor) -> Tensor:
        own = next(iter(network.backbone.state_dict().values()), batch).device
        if not isinstance(network.spec.input, ImageInput) or self._device == own:
            return network.raw_features(batch.to(own))
        backbone = self._placed.get(network.backbone)
        if backbone is None:
            backbone = self._placed[network.backbone] = copy.deepcopy(network.backbone).to(self._device)
        made: Tensor = backbone(batch.to(self._device))
        return made

    def _keep(self, key: tuple[int, str, str], row: Tensor) -> Tensor:
        if key not in self._items:
            self._held += row.nbytes
        self._items[key] = row
        while self._held > self._limit and len(self._items) > 1:
            self._held -= self._items.popitem(last=False)[1].nbytes
        return row


def _floats(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.frombuffer(data, dtype="<f4").astype(np.float32)
