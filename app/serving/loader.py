"""Turns a version's record and files into a Predictor that has been tried.

Called off the event loop, by the Refresher's loading threads and by PinnedVersions. Knows nothing of what is live.
"""

from collections.abc import Mapping

import torch

from app.errors import Corrupt, FilesGone, MissingWeights
from app.networks.base_weights import BaseWeights
from app.networks.catalog import build, skeleton
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.networks.serialization import load_weights
from app.networks.spec import NetworkSpec
from app.serving.predictor import Predictor
from app.storage.registry import ModelRegistry
from app.storage.tables import ArtifactKind, FileState, Model, Version
from app.storage.weights import WeightStore


class PredictorLoader:
    """Reads, verifies, builds and warms up."""

    def __init__(
        self,
        registry: ModelRegistry,
        weights: WeightStore,
        *,
        builders: Mapping[str, str],
        base_weights: BaseWeights,
        device: str,
    ) -> None:
        self._registry = registry
        self._weights = weights
        self._builders = builders
        self._base_weights = base_weights
        self._device = torch.device(device)

    def load(self, model: Model, version: Version) -> Predictor:
        """Give a warm Predictor of the version; Corrupt, FilesGone or InvalidNetwork when it cannot be served."""
        if version.files in (FileState.DELETING, FileState.DELETED):
            raise FilesGone(model.name, version.number)
        predictor = self._predictor(model, version)
        predictor.warm_up()
        return predictor

    def _predictor(self, model: Model, version: Version) -> Predictor:
        spec = NetworkSpec.from_json(version.spec)
        names = {label.id: label.name for label in self._registry.labels(model.id)}
        unnamed = [label for label in spec.labels if label not in names]
        if unnamed:
            raise Corrupt(f"version {version.number} of {model.name!r}", f"it scores labels nobody knows: {unnamed}")
        return Predictor(
            model_id=model.id,
            model=model.name,
            version_id=version.id,
            version=version.number,
            network=self._network(version, spec),
            preprocessor=preprocessor_for(spec),
            labels=[names[label] for label in spec.labels],
            device=self._device,
        )

    def _network(self, version: Version, spec: NetworkSpec) -> Network:
        if version.files == FileState.NONE:  # as it was created: from base weights or a seed
            return build(spec, self._builders, self._base_weights)
        artifact = self._registry.artifacts(version.id).get(ArtifactKind.WEIGHTS)
        if artifact is None:
            raise MissingWeights(f"The weights of version {version.id}")
        network = skeleton(spec, self._builders)
        load_weights(network, self._weights.read(version.id, artifact))
        return network
