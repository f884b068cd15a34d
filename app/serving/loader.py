"""Turns a version's record and files into a Predictor that has been tried.

Called off the event loop, by the Refresher's loading threads and by PinnedVersions. Knows nothing of what is live.
"""

from collections import deque
from weakref import WeakSet, finalize

import torch
from torch import nn

from app.errors import Corrupt, FilesGone
from app.loading import VersionLoader
from app.networks.preprocessor import preprocessor_for
from app.networks.serialization import Pause, go_on
from app.serving.executions import Executions
from app.serving.predictor import Predictor
from app.serving.recent_inputs import RecentInputs
from app.serving.warm_up import warm_up
from app.serving.ways import Options
from app.storage.registry import ModelRegistry
from app.storage.states import FileState
from app.storage.tables import Model, Version


class PredictorLoader:
    """Loads a version, names its labels and warms it up."""

    def __init__(
        self,
        registry: ModelRegistry,
        versions: VersionLoader,
        *,
        device: torch.device | str,
        options: Options | None = None,
        pause: Pause = go_on,
    ) -> None:
        """`versions` must load onto `device`; `pause` is called between the passes of the warm-up."""
        self._registry = registry
        self._versions = versions
        self._device = torch.device(device)
        self._executions = Executions(self._device, options or Options(), pause)
        self._pause = pause
        self._gone: deque[int] = deque()  # versions that were let go; a deque needs no lock in a finalizer
        self._known_sizes: dict[str, set[int]] = {}  # batch sizes that were tried, by the form of the network
        self._warmed: WeakSet[nn.Module] = WeakSet()  # backbones that have answered

    def load(self, model: Model, version: Version, recent: RecentInputs | None = None) -> Predictor:
        """Give a Predictor of the version, warmed up with recent inputs of its model.

        Corrupt, FilesGone or InvalidNetwork when it cannot be served.
        """
        if version.files in (FileState.DELETING, FileState.DELETED):
            raise FilesGone(model.name, version.number)
        recent = recent or RecentInputs()
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
            recent=recent,
            execution=self._executions.of(network, self._versions.seat_of(network.backbone)),
        )
        known = self._known_sizes.setdefault(network.spec.form, set())
        known.update(
            warm_up(
                predictor,
                recent,
                backbone_is_warm=network.backbone in self._warmed,
                known_sizes=known if self._device.type == "cpu" else (),  # elsewhere each network prepares its own
                pause=self._pause,
            )
        )
        self._warmed.add(network.backbone)
        finalize(predictor, self._gone.append, predictor.version).atexit = False
        return predictor

    def settle(self, predictor: Predictor) -> None:
        """Find the soonest way to run what is served now; the version answers meanwhile."""
        self._executions.prepare(predictor.network)

    def end_settling(self) -> None:
        """Give that up, where it is under way, and look for no more."""
        self._executions.end()

    def let_go(self) -> bool:
        """Say whether a version that was loaded here has gone since the last call: memory can be given back."""
        gone = bool(self._gone)
        self._gone.clear()
        return gone
