"""Versions that a request asked for by number and that are not live: loaded on demand, a few kept.

Called from the inference threads only, since a load takes a while. Knows nothing of HTTP.
"""

import threading
from collections import OrderedDict

from app.serving.live_model import LiveModels
from app.serving.loader import PredictorLoader
from app.serving.predictor import Predictor
from app.storage.registry import ModelRegistry


class PinnedVersions:
    """The least recently used goes first."""

    def __init__(
        self, registry: ModelRegistry, loader: PredictorLoader, live_models: LiveModels, *, capacity: int
    ) -> None:
        self._registry = registry
        self._loader = loader
        self._live_models = live_models
        self._capacity = capacity
        self._kept: OrderedDict[tuple[str, int], Predictor] = OrderedDict()
        self._loading = threading.Lock()  # one load at a time: a burst for one version loads it once

    def get(self, model: str, number: int) -> Predictor:
        """Give that version, loaded if need be; UnknownVersion, FilesGone or Corrupt when it cannot be served."""
        live = self._live_models.get(model)
        warm = None if live is None else live.warm_number(number)
        if warm is not None:
            return warm
        with self._loading:
            kept = self._kept.get((model, number))
            if kept is None:
                recent = None if live is None else live.recent
                kept = self._loader.load(self._registry.model(model), self._registry.version(model, number), recent)
                self._kept[model, number] = kept
            self._kept.move_to_end((model, number))
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
            return kept
