"""Turns a version's record and files into a Predictor that has been tried.

Called off the event loop, by the Refresher's loading threads and by PinnedVersions. Knows nothing of what is live.
"""

from weakref import WeakSet

import torch
from torch import nn

from app.errors import Corrupt, FilesGone
from app.loading import VersionLoader
from app.networks.preprocessor import preprocessor_for
from app.serving.predictor import Predictor
from app.storage.registry import ModelRegistry
from app.storage.tables import FileState, Model, Version


class PredictorLoader:
    """Loads a version, names its labels and warms it up."""

    def __init__(self, registry: ModelRegistry, versions: VersionLoader, *, device: str) -> None:
        """`versions` must load onto `device`."""
        self._registry = registry
        self._versions = versions
        self._device = torch.device(device)
        self._warmed: WeakSet[nn.Module] = WeakSet()  # backbones that have answered

    def load(self, model: Model, version: Version) -> Predictor:
        """Give a warm Predictor of the version; Corrupt, FilesGone or InvalidNetwork when it cannot be served."""
        if version.files in (FileState.DELETING, FileState.DELETED):
            raise FilesGone(model.name, version.number)
        network = self._versions.load(version)
        names = {label.id: label.name for label in self._registry.labels(model.id)}
        unnamed = [label for label in network.spec.labels if label not in names]
        if unnamed:
            raise Corrupt(f"version {version.number} of {model.name!r}", f"it scores labels nobody knows: {unnamed}")
        predictor = Predictor(
            model_id=model.id,
            model=model.name,
            version_id=version.id,
            version=version.number,
            network=network,
            preprocessor=preprocessor_for(network.spec),
            labels=[names[label] for label in network.spec.labels],
            device=self._device,
        )
        predictor.warm_up(backbone_is_warm=network.backbone in self._warmed)
        self._warmed.add(network.backbone)
        return predictor
