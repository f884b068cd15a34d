"""Versions as networks: what the worker learns from and compares with.

Called by the worker's update. Reads files through the weight store, which verifies them; changes nothing.
"""

from collections.abc import Mapping

from torch import Tensor

from app.errors import Corrupt, MissingWeights
from app.log import get_logger
from app.networks.base_weights import BaseWeights
from app.networks.catalog import build, skeleton
from app.networks.network import Network
from app.networks.serialization import from_bytes, load_weights
from app.networks.spec import NetworkSpec
from app.storage.registry import ModelRegistry
from app.storage.tables import ArtifactKind, FileState, Version
from app.storage.weights import WeightStore

log = get_logger(__name__)


class VersionLoader:
    def __init__(
        self, registry: ModelRegistry, weights: WeightStore, builders: Mapping[str, str], base_weights: BaseWeights
    ) -> None:
        self._registry = registry
        self._weights = weights
        self._builders = builders
        self._base_weights = base_weights

    def load(self, version: Version) -> Network:
        """Give the version's network in eval mode, fresh; Corrupt or MissingWeights when its file is no good."""
        spec = NetworkSpec.from_json(version.spec)
        if version.files == FileState.NONE:
            return build(spec, self._builders, self._base_weights)
        artifact = self._registry.artifacts(version.id).get(ArtifactKind.WEIGHTS)
        if artifact is None:
            raise MissingWeights(f"version {version.number}")
        network = skeleton(spec, self._builders)
        load_weights(network, self._weights.read(version.id, artifact))
        return network

    def learner_state(self, version: Version) -> dict[str, Tensor] | None:
        """Give what the learner left with the version; None when it left nothing, or nothing that can be used.

        Without it learning begins with a rested optimizer, which costs little; so it is no reason to stop.
        """
        artifact = self._registry.artifacts(version.id).get(ArtifactKind.LEARNER_STATE)
        if artifact is None:
            return None
        try:
            return from_bytes(self._weights.read(version.id, artifact))
        except Corrupt as error:
            log.warning("learner state not usable", version=version.number, error=str(error))
            return None
