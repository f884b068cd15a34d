"""The worker's loop: look for due models, claim, have the update performed, keep house; for ever, whatever happens.

Started by `python -m worker`. Imports no torch: what performs an update is handed in. One thread serves both lanes:
a slow update gives way between two of its steps, and what waits in the fast lane is learned there and then.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.errors import LeaseLost, StaleParent
from app.log import get_logger
from app.storage.claims import Claim
from app.storage.queue import SampleQueue
from app.storage.states import Lane, UpdateKind
from app.storage.triggers import Due

log = get_logger(__name__)


@dataclass(frozen=True)
class Pace:
    """How often, how long, how much."""

    poll_seconds: float = 0.25
    lease_seconds: float = 30.0
    claim_limit: int = 2048
    reap_seconds: float = 5.0
    housekeeping_seconds: float = 60.0
    longest_back_off_seconds: float = 30.0


GiveWay = Callable[[], None]


class Loop:
    """One claim at a time and lane, the models taking turns. `run` returns once `stop` is set and the update ended."""

    def __init__(
        self,
        queue: SampleQueue,
        perform: Callable[[Claim, GiveWay], None],
        *,
        worker: str,
        stop: threading.Event,
        keep_house: Callable[[], object],
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`perform` turns a claim into a version; it calls what it is given between two steps."""
        self._queue = queue
        self._perform = perform
        self._worker = worker
        self._stop = stop
        self._keep_house = keep_house
        self._pace = pace or Pace()
        self._clock = clock
        self._last_model = dict.fromkeys(Lane, 0)
        self._failures = 0
        self._reaped_at = self._housed_at = self._gave_way_at = clock()

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                worked = self.round()
            except Exception:
                self._failures += 1
                log.exception("round failed", failures=self._failures)
                worked = False
            if not worked or self._failures:
                self._stop.wait(self._pause())

    def round(self) -> bool:
        """Claim once and perform it; tell whether there was something to do."""
        self._now_and_then()
        due = self._queue.due()
        claim = self._next_claim(due, Lane.FAST) or self._next_claim(due, Lane.SLOW)
        if claim is None:
            self._failures = 0  # all answers again, and what failed has a back-off of its own in the queue
            return False
        if self._performed(claim):
            self._failures = 0
        else:
            self._failures += 1
        return True

    def _performed(self, claim: Claim) -> bool:
        fields = {"model": claim.model.name, "update": claim.update_id, "samples": len(claim.revisions)}
        log.info("update begins", parent=claim.parent.number, lane=claim.lane.value, **fields)
        try:
            self._perform(claim, self._give_way if claim.lane == Lane.SLOW else _nothing)
        except StaleParent as error:
            log.warning("update overtaken", error=str(error), **fields)
            self._released(claim, error)
        except LeaseLost as error:
            log.warning("update overtaken", error=str(error), **fields)
            if claim.relatives:  # their leases are whole: only one of the family was overtaken
                self._released(claim, error)
        except Exception as error:
            log.exception("update failed", **fields)
            for update_id in claim.update_ids:
                self._queue.fail(update_id, _words(error))
            return False
        return True

    def _released(self, claim: Claim, error: Exception) -> None:
        for update_id in claim.update_ids:
            self._queue.release(update_id, str(error))

    def _give_way(self) -> None:
        """Learn what waits in the fast lane, in the middle of a slow update; what goes wrong there is no harm here."""
        at = self._clock()
        if at - self._gave_way_at < self._pace.poll_seconds:
            return
        try:
            claim = self._next_claim(self._queue.due(), Lane.FAST)
            if claim is not None and self._performed(claim):
                return  # there may be more: look again after the next step
        except Exception:
            log.exception("fast lane failed beside a slow update")
        self._gave_way_at = at

    def _next_claim(self, due: Sequence[Due], lane: Lane) -> Claim | None:
        """The first due model of the lane after the one served last, so that a busy one starves no other."""
        last = self._last_model[lane]
        mine = sorted((one for one in due if one.lane == lane), key=lambda one: (one.model_id <= last, one.model_id))
        for one in mine:
            if self._stop.is_set():
                return None
            self._last_model[lane] = one.model_id
            claim = self._claimed(one)
            if claim is not None:
                return claim
        return None

    def _claimed(self, one: Due) -> Claim | None:
        lease = self._pace.lease_seconds
        if one.kind == UpdateKind.REFINE:
            return self._queue.begin(one.model_id, worker=self._worker, lease_seconds=lease)
        return self._queue.claim(
            one.model_id, worker=self._worker, lease_seconds=lease, limit=self._pace.claim_limit, lane=one.lane
        )

    def _now_and_then(self) -> None:
        at = self._clock()
        if at - self._reaped_at >= self._pace.reap_seconds:
            self._reaped_at = at
            expired = self._queue.expire()
            if expired:
                log.warning("updates expired", updates=expired)
        if at - self._housed_at >= self._pace.housekeeping_seconds:
            self._housed_at = at
            self._keep_house()

    def _pause(self) -> float:
        if not self._failures:
            return self._pace.poll_seconds
        back_off: float = self._pace.poll_seconds * 2 ** min(self._failures, 16)
        return min(self._pace.longest_back_off_seconds, back_off)


def _nothing() -> None:
    pass


def _words(error: Exception) -> str:
    """What the receipt says: the kind of error and its message, bounded."""
    return f"{type(error).__name__}: {error}"[:2000]
