"""Makes this process serve what the registry says is live.

One thread looks and reports, others load, one more tries how what is served runs soonest; so a slow load or trial
delays no other model and no sign of life. Started by the composition root; admin calls wake it. Knows nothing of HTTP.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from app.batching import Batching
from app.errors import MissingBase, PerennialError
from app.log import get_logger
from app.serving.host_memory import give_back
from app.serving.live_model import LiveModel, LiveModels
from app.serving.load_attempt import LoadAttempt
from app.serving.loader import PredictorLoader
from app.serving.pace import step_back
from app.serving.predictor import Predictor
from app.serving.presence import Presence
from app.serving.readiness import Readiness
from app.serving.swap_report import SwapReport
from app.storage.learning_figures import LabelAges
from app.storage.registry import Assigned, Mark, ModelRegistry
from app.storage.servers import ServerRoster
from app.storage.states import AssignmentRole

log = get_logger(__name__)

LOADING_THREADS = 2


class Refresher:
    """Polls the assignments and brings each LiveModel to its version."""

    def __init__(
        self,
        registry: ModelRegistry,
        roster: ServerRoster,
        loader: PredictorLoader,
        live_models: LiveModels,
        *,
        poll_seconds: float,
        configure: Callable[[str, Batching], None] = lambda _name, _batching: None,
        clock: Callable[[], float] = time.monotonic,
        label_ages: Callable[[str], LabelAges | None] = lambda _version_id: None,
        swapped: Callable[[SwapReport], None] = lambda _swap: None,
    ) -> None:
        """`swapped` is told of every version that is served from now on, with what `label_ages` says of it."""
        self._registry = registry
        self._presence = Presence(roster, live_models, clock)
        self._loader = loader
        self._live_models = live_models
        self._poll_seconds = poll_seconds
        self._configure = configure
        self._clock = clock
        self._label_ages = label_ages
        self._swapped = swapped
        self._attempts: dict[int, LoadAttempt] = {}  # by model id
        self._assigned: dict[int, int] = {}  # model id → epoch, as last seen
        self._told: dict[int, int] = {}  # model id → epoch served, as last reported
        self._seen_assignments = False
        self._mark: Mark | None = None  # of the assignments that were brought about last, every one of them
        self._state = threading.Condition()
        self._waking = threading.Event()
        self._stopping = threading.Event()
        self._loading = ThreadPoolExecutor(LOADING_THREADS, thread_name_prefix="loading", initializer=step_back)
        self._settling = ThreadPoolExecutor(1, thread_name_prefix="settling", initializer=step_back)
        self._thread = threading.Thread(target=self._run, name="refresher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Look at once instead of at the next poll."""
        self._waking.set()

    def stop(self) -> None:
        """End the threads and sign off; what is served stays in memory for requests still in work."""
        self._stopping.set()
        self._waking.set()
        with self._state:
            self._state.notify_all()  # whoever waits until it is ready
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self._loader.end_settling()
        for threads in (self._loading, self._settling):
            threads.shutdown(wait=True, cancel_futures=True)
        self._quietly("leave", self._presence.leave)

    def readiness(self) -> Readiness:
        """Say which assigned models do not answer here yet, and which answer by another version than assigned."""
        with self._state:
            if not self._seen_assignments:
                return Readiness(waiting=("assignments",), degraded=())
            mine = [live for live in self._live_models.all() if live.model_id in self._assigned]
            return Readiness(
                waiting=tuple(live.name for live in mine if live.current is None),
                degraded=tuple(live.name for live in mine if live.current is not None and live.error is not None),
            )

    def wait_until_ready(self, seconds: float) -> bool:
        """Wait until every model has an answer here; False if that takes longer."""
        with self._state:
            return self._state.wait_for(lambda: self._stopping.is_set() or not self.readiness().waiting, seconds)

    def wait_for(self, model_id: int, epoch: int, seconds: float) -> bool:
        """Wait until this process serves that epoch of the model or a later one, and the roster says so."""
        self.wake()
        with self._state:
            return self._state.wait_for(lambda: self._told.get(model_id, -1) >= epoch, timeout=seconds)

    def refresh(self) -> None:
        """One turn: read the assignments, publish what is warm, start loading the rest, report."""
        mark = self._registry.assignment_mark()
        if mark != self._mark:
            self._mark = mark if self._follow() else None
        told = self._presence.tell()
        if told is not None:
            with self._state:
                self._told = told
                self._state.notify_all()
        if self._loader.let_go():
            self._loading.submit(give_back)

    def _follow(self) -> bool:
        """Bring what is assigned; False while something of it is not served yet, and is to be looked at again."""
        assigned = [one for one in self._registry.assigned() if one.role == AssignmentRole.LIVE]
        for one in assigned:
            self._quietly("configure", partial(self._join, one))  # one strange row must not stop the others
        served = [self._bring(one) for one in assigned]
        with self._state:
            self._assigned = {one.model.id: one.epoch for one in assigned}
            self._seen_assignments = True
            self._state.notify_all()
        return all(served)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._quietly("refresh", self.refresh)
            self._waking.wait(self._poll_seconds)
            self._waking.clear()

    def _quietly(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception:  # what is served stays served while the database is away
            log.warning("refresher failed", at=what, exc_info=True)

    def _join(self, one: Assigned) -> None:
        self._configure(one.model.name, Batching.model_validate(one.model.batching))

    def _bring(self, one: Assigned) -> bool:
        """Say whether it is served; if not, begin to load it unless that is under way or to wait."""
        live = self._live_models.add(one.model.name, one.model.id)
        if live.current is not None and live.current.epoch >= one.epoch:
            return True
        warm = live.warm(one.version.id)
        if warm is not None:
            self._publish(live, warm, one.epoch)
            return True
        with self._state:
            attempt = self._attempts.get(one.model.id)
            if attempt is None or (attempt.version_id, attempt.epoch) != (one.version.id, one.epoch):
                attempt = self._attempts[one.model.id] = LoadAttempt(one.version.id, one.epoch)
            if attempt.loading or self._clock() < attempt.not_before:
                return False
            attempt.loading = True
        self._loading.submit(self._load, live, one, attempt)
        return False

    def _load(self, live: LiveModel, one: Assigned, attempt: LoadAttempt) -> None:
        try:
            started = time.perf_counter()
            predictor = self._loader.load(one.model, one.version, live.recent)
            self._publish(live, predictor, one.epoch, load_seconds=time.perf_counter() - started)
            if not self._stopping.is_set():
                self._settling.submit(self._settle, live, predictor)
        except Exception as error:  # noqa: BLE001  # a builder may raise anything; the old version stays
            self._failed(live, one, attempt, error)
        finally:
            with self._state:
                attempt.loading = False
            self.wake()  # report at once

    def _settle(self, live: LiveModel, predictor: Predictor) -> None:
        served = live.current
        if served is not None and served.predictor is predictor:  # else a newer one came meanwhile
            self._quietly("settle", lambda: self._loader.settle(predictor))
            give_back()  # what the trial used

    def _failed(self, live: LiveModel, one: Assigned, attempt: LoadAttempt, error: Exception) -> None:
        with self._state:
            delay = attempt.fail(self._clock())
            overtaken = self._attempts.get(one.model.id) is not attempt
        if overtaken or (live.current is not None and live.current.epoch >= one.epoch):
            log.info("failed load of no more concern", model=live.name, version=one.version.number, error=str(error))
            return
        why = str(error) if isinstance(error, PerennialError) else f"{type(error).__name__}; the log has it"
        live.error = f"Version {one.version.number} could not be loaded: {why}"
        log.error(
            "version not loaded",
            model=one.model.name,
            version=one.version.number,
            retry_seconds=delay,
            exc_info=not isinstance(error, PerennialError),
            error=str(error),
        )
        if live.current is None:
            self._fall_back(live, one)

    def _fall_back(self, live: LiveModel, one: Assigned) -> None:
        """Serve the nearest ancestor that loads, published one epoch early so that the real one replaces it."""
        broken: set[str] = set()  # bases that could not be read: what else stands on them need not be tried
        for version_id in self._ancestors(one):
            predictor = self._try_ancestor(live, one, version_id, broken)
            if predictor is not None:
                why = f"{live.error} Serving version {predictor.version} meanwhile."
                self._publish(live, predictor, one.epoch - 1, error=why)
                return

    def _ancestors(self, one: Assigned) -> list[str]:
        try:
            return self._registry.line(one.version.id)[1:]
        except PerennialError:
            return []

    def _try_ancestor(self, live: LiveModel, one: Assigned, version_id: str, broken: set[str]) -> Predictor | None:
        try:
            version = self._registry.version_by_id(version_id)
            if version.base_id in broken:
                return None
            return self._loader.load(one.model, version, live.recent)
        except Exception as error:  # noqa: BLE001  # try the one before it
            if isinstance(error, MissingBase):
                broken.add(error.base_id)
            log.warning("ancestor not loaded", model=one.model.name, version=version_id, error=str(error))
            return None

    def _publish(
        self,
        live: LiveModel,
        predictor: Predictor,
        epoch: int,
        *,
        error: str | None = None,
        load_seconds: float | None = None,
    ) -> None:
        before = live.current
        started = time.perf_counter()
        published = live.publish(predictor, epoch)
        swap_seconds = time.perf_counter() - started
        if not published:
            log.info("late load dropped", model=live.name, version=predictor.version, epoch=epoch)
            return
        live.error = error
        log.info(
            "version served",
            model=live.name,
            version=predictor.version,
            before=None if before is None else before.predictor.version,
            epoch=epoch,
        )
        new = load_seconds is not None and before is not None and before.predictor.version < predictor.version
        self._quietly("count", lambda: self._count(predictor, swap_seconds, load_seconds, new=new))

    def _count(self, predictor: Predictor, swap_seconds: float, load_seconds: float | None, *, new: bool) -> None:
        ages = self._label_ages(predictor.version_id) if new else None
        self._swapped(
            SwapReport(
                model=predictor.model,
                version=predictor.version,
                swap_seconds=swap_seconds,
                load_seconds=load_seconds,
                newest_label_seconds=None if ages is None else ages.newest,
                oldest_label_seconds=None if ages is None else ages.oldest,
            )
        )
