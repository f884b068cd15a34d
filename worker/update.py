"""One update: claim → learn → judge → publish.

Performed by the worker's loop. Keeps the lease alive, chooses the way to learn that the claim and the recipe ask for,
and tells what came of it.
"""

from collections.abc import Callable

import torch

from app.errors import LeaseLost
from app.loading import VersionLoader
from app.log import get_logger
from app.recipe import Recipe
from app.storage.claims import Claim
from app.storage.killpoint import KillPoint
from app.storage.states import Lane
from app.storage.tables import Version
from worker.attempt import Attempt, Stores
from worker.courtesy import Courtesy
from worker.decoding import Decoder
from worker.family_lane import FamilyLane
from worker.fast import FastLane
from worker.featuring import FeatureSource
from worker.heartbeat import Heartbeat
from worker.learning.failure import LearningStopped
from worker.lesson import Lesson
from worker.slow import SlowLane
from worker.sums_of_the_line import SumsOfTheLine

log = get_logger(__name__)


class Updater:
    """Performs updates; a slow one gives way to fast ones between its steps, all in one thread."""

    def __init__(
        self,
        stores: Stores,
        loader: VersionLoader,
        *,
        device: torch.device,
        lease_seconds: float,
        stopping: Callable[[], bool] = lambda: False,
        kill_point: KillPoint | None = None,
        courtesy: Courtesy | None = None,
    ) -> None:
        self._stores = stores
        self._loader = loader
        self._device = device
        self._lease_seconds = lease_seconds
        self._stopping = stopping
        self._kill_point = kill_point or KillPoint()
        self._courtesy = courtesy or Courtesy()
        decoder = Decoder(stores.line.contents)
        source = FeatureSource(stores.features, decoder, device=device)
        sums = SumsOfTheLine()
        self._lesson = Lesson(decoder)
        self._fast = FastLane(source, sums)
        self._slow = SlowLane(decoder, source, sums)
        self._family = FamilyLane(decoder, source, sums)

    def perform(self, claim: Claim, give_way: Callable[[], None] = lambda: None) -> None:
        """Turn the claim into a judged version. Raises LeaseLost or StaleParent when overtaken: nothing was published.

        When the process is to stop, the claim is let go between two steps, with no attempt counted. Any other error
        means that the update failed; telling the queue is the caller's part.
        """
        self._kill_point("after_claim")
        with Heartbeat(self._stores.queue, *claim.update_ids, lease_seconds=self._lease_seconds) as heartbeat:
            attempt = Attempt(
                self._stores,
                self._loader,
                self._device,
                self._kill_point,
                claim,
                should_stop=lambda: self._should_stop(heartbeat),
                give_way=give_way,
                lease_seconds=self._lease_seconds,
                pause=self._courtesy.rest,
            )
            try:
                with self._courtesy:
                    version = self._version(attempt)
            except LearningStopped:
                if heartbeat.lost.is_set():
                    raise LeaseLost(claim.update_id) from None
                for update_id in claim.update_ids:
                    self._stores.queue.release(update_id, "the worker was told to stop")
                log.info("update let go", model=claim.model.name, update=claim.update_id)
                return
        log.info(
            "update ends",
            model=claim.model.name,
            update=claim.update_id,
            lane=claim.lane.value,
            version=version.number,
            verdict=version.verdict,
            reason=version.reason,
        )

    def _should_stop(self, heartbeat: Heartbeat) -> bool:
        self._courtesy.look()
        return heartbeat.lost.is_set() or self._stopping()

    def _version(self, attempt: Attempt) -> Version:
        if not Recipe.model_validate(attempt.claim.model.recipe).closed_form:
            return self._lesson.perform(attempt)
        if attempt.claim.lane == Lane.FAST:
            return self._fast.perform(attempt)
        return (self._slow if attempt.claim.model.family_id is None else self._family).perform(attempt)
