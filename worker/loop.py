"""The worker's loop: look for due models, claim, have the update performed, keep house; for ever, whatever happens.

Started by `python -m worker`. Imports no torch: what performs an update is handed in.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import LeaseLost, StaleParent
from app.log import get_logger
from app.storage.claims import Claim
from app.storage.queue import SampleQueue

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


class Loop:
    """One claim at a time, the models taking turns. `run` returns once `stop` is set and the update at hand ended."""

    def __init__(
        self,
        queue: SampleQueue,
        perform: Callable[[Claim], None],
        *,
        worker: str,
        stop: threading.Event,
        keep_house: Callable[[], object],
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._perform = perform
        self._worker = worker
        self._stop = stop
        self._keep_house = keep_house
        self._pace = pace or Pace()
        self._clock = clock
        self._last_model = 0
        self._failures = 0
        self._reaped_at = self._housed_at = clock()

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
        claim = self._next_claim()
        if claim is None:
            self._failures = 0  # all answers again, and what failed has a back-off of its own in the queue
            return False
        fields = {"model": claim.model.name, "update": claim.update_id, "samples": len(claim.revisions)}
        log.info("update begins", parent=claim.parent.number, **fields)
        try:
            self._perform(claim)
        except (LeaseLost, StaleParent) as error:
            log.warning("update overtaken", error=str(error), **fields)
        except Exception as error:
            self._failures += 1
            log.exception("update failed", **fields)
            self._queue.fail(claim.update_id, _words(error))
            return True
        self._failures = 0
        return True

    def _next_claim(self) -> Claim | None:
        """The first due model after the one served last, so that a busy one starves no other."""
        due = sorted(self._queue.due())
        turn = [model for model in due if model > self._last_model] + [
            model for model in due if model <= self._last_model
        ]
        for model in turn:
            if self._stop.is_set():
                return None
            self._last_model = model
            claim = self._queue.claim(
                model, worker=self._worker, lease_seconds=self._pace.lease_seconds, limit=self._pace.claim_limit
            )
            if claim is not None:
                return claim
        return None

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


def _words(error: Exception) -> str:
    """What the receipt says: the kind of error and its message, bounded."""
    return f"{type(error).__name__}: {error}"[:2000]
