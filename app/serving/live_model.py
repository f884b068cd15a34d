"""What this process serves of each model, and the earlier versions it keeps loaded.

The Refresher publishes into it, every predict request reads it once. Knows nothing of loading or of HTTP.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import NoLiveModel
from app.serving.predictor import Predictor
from app.serving.recent_inputs import RecentInputs

KillPoint = Callable[[str], None]


@dataclass(frozen=True)
class Served:
    """A predictor and the epoch of the line it was published for."""

    predictor: Predictor
    epoch: int


class LiveModel:
    """Holds the current Predictor of one model.

    A swap is the one store of `current`: who read it before answers with the old version to the end, and the
    old version's memory goes when it is neither warm nor held by a request.
    """

    def __init__(self, name: str, model_id: int, *, warm_versions: int, kill_point: KillPoint) -> None:
        self.name = name
        self.model_id = model_id
        self.current: Served | None = None
        self.error: str | None = None  # why the assigned version is not the one served
        self.swaps = 0
        self.recent = RecentInputs()
        self._warm: OrderedDict[str, Predictor] = OrderedDict()  # oldest use first; holds the current one too
        self._warm_versions = warm_versions
        self._kill_point = kill_point
        self._publishing = threading.Lock()

    def predictor(self) -> Predictor:
        """Give the version that answers now; NoLiveModel before the first is loaded."""
        served = self.current
        if served is None:
            raise NoLiveModel(self.name)
        return served.predictor

    def publish(self, predictor: Predictor, epoch: int) -> bool:
        """Serve this version from now on, unless a later decision is served already; say whether it is served."""
        with self._publishing:
            before = self.current
            if before is not None and epoch < before.epoch:
                return False
            swap_point = self._kill_point if before is not None else _no_point  # the first version swaps nothing out
            swap_point("before_swap")
            self._warm[predictor.version_id] = predictor
            self._warm.move_to_end(predictor.version_id)
            swap_point("during_swap")
            self.current = Served(predictor, epoch)
            if before is None or before.predictor is not predictor:
                self.swaps += 1
            while len(self._warm) > self._warm_versions + 1:
                self._warm.popitem(last=False)
            swap_point("after_swap")
            return True

    def warm(self, version_id: str) -> Predictor | None:
        """Give the version if it is still loaded."""
        with self._publishing:
            return self._warm.get(version_id)

    def warm_number(self, version: int) -> Predictor | None:
        """Give the version of that number if it is still loaded."""
        with self._publishing:
            return next((one for one in self._warm.values() if one.version == version), None)

    def warm_ids(self) -> list[str]:
        """Name the versions that are loaded."""
        with self._publishing:
            return list(self._warm)


class LiveModels:
    """The LiveModel of each model by its name; the Refresher adds, requests read."""

    def __init__(self, *, warm_versions: int, kill_point: KillPoint) -> None:
        self._warm_versions = warm_versions
        self._kill_point = kill_point
        self._by_name: dict[str, LiveModel] = {}
        self._adding = threading.Lock()

    def get(self, name: str) -> LiveModel | None:
        return self._by_name.get(name)

    def all(self) -> list[LiveModel]:
        return list(self._by_name.values())

    def add(self, name: str, model_id: int) -> LiveModel:
        """Give the LiveModel of that name, made empty if there was none."""
        with self._adding:
            found = self._by_name.get(name)
            if found is None:
                found = LiveModel(name, model_id, warm_versions=self._warm_versions, kill_point=self._kill_point)
                self._by_name = {**self._by_name, name: found}  # readers never see it half changed
            return found


def _no_point(name: str) -> None:
    pass
