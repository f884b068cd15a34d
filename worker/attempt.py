"""One attempt at an update: its ids and clocks, and how what it made is written and committed.

Made by the Updater for each claim, used by the three ways to learn. Decides nothing about learning or judging.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from uuid_utils import uuid7

from app.errors import Conflict, LeaseLost, StaleParent
from app.loading import VersionLoader
from app.networks.serialization import Pause, go_on, to_bytes
from app.recipe import Recipe
from app.storage.claims import Claim, Outcome
from app.storage.features import FeatureStore
from app.storage.killpoint import KillPoint
from app.storage.line import LineReader
from app.storage.queue import SampleQueue
from app.storage.registry import ModelRegistry
from app.storage.states import ArtifactKind
from app.storage.tables import Version
from app.storage.weights import WeightFile, WeightStore
from worker.learning.failure import LearningStopped
from worker.material import Material


@dataclass(frozen=True)
class Stores:
    """What an update reads and writes."""

    queue: SampleQueue
    registry: ModelRegistry
    line: LineReader
    weights: WeightStore
    features: FeatureStore


@dataclass
class Attempt:
    """The claim at hand and what is known of the attempt so far."""

    stores: Stores
    loader: VersionLoader
    device: torch.device
    kill_point: KillPoint
    claim: Claim
    should_stop: Callable[[], bool]
    give_way: Callable[[], None]
    lease_seconds: float
    pause: Pause = go_on
    version_id: str = field(default_factory=lambda: str(uuid7()))
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        return Recipe.model_validate(self.claim.model.recipe)

    @property
    def seed(self) -> int:
        return self.recipe.seed + self.claim.update_id

    @property
    def anchor_id(self) -> str:
        """The version of the line that was best on its held-out samples when the parent was judged."""
        recorded = self.claim.parent.metrics.get("anchor")
        return recorded if isinstance(recorded, str) else self.claim.parent.id

    def between_steps(self) -> None:
        """Let the fast lane learn what waits, and stop if that is asked; raises LearningStopped."""
        self.give_way()
        if self.should_stop():
            raise LearningStopped

    def stopping(self) -> bool:
        """The same as a question, for those that ask."""
        self.give_way()
        return self.should_stop()

    def beside(self, claim: Claim) -> "Attempt":
        """The attempt at a relative's part of the same update."""
        return replace(self, claim=claim, version_id=str(uuid7()), seconds={})

    def onto(self, live: Version, epoch: int) -> None:
        """Publish on top of this version from now on: a slow update is judged against what is live when it ends."""
        self.claim = replace(self.claim, parent=live, epoch=epoch)

    def left_behind(self, version: Version) -> tuple[str, dict[str, Tensor]]:
        """The newest learner state of the version's line, and the id of the version it was saved with; empty if none.

        Fast versions seldom leave one, so it is not always the version's own.
        """
        near = self.stores.registry.nearest(version.id, ArtifactKind.LEARNER_STATE)
        return (near.id, self.loader.learner_state(near) or {}) if near is not None else ("", {})

    def write(
        self, weights: Mapping[str, Tensor], state: Mapping[str, Tensor] | None
    ) -> tuple[WeightFile, WeightFile | None]:
        """Store the version's files durably."""
        with self.timed("write"):
            try:
                written = self._written(ArtifactKind.WEIGHTS, weights)
                left = self._written(ArtifactKind.LEARNER_STATE, state) if state else None
            except BaseException:
                self.stores.weights.delete(self.version_id)  # on a full disk every attempt would leave a file behind
                raise
        self.kill_point("after_write")
        return written, left

    def _written(self, kind: ArtifactKind, tensors: Mapping[str, Tensor]) -> WeightFile:
        return self.stores.weights.write(self.version_id, kind, to_bytes(tensors, self.pause))

    def commit(self, outcome: Outcome) -> Version:
        """Record it all, or nothing; files that no row will ever name are let go."""
        self.kill_point("before_commit")
        try:
            version = self.stores.queue.commit(self.claim, outcome)
        except (LeaseLost, StaleParent):
            self.stores.weights.delete(self.version_id)
            raise
        self.kill_point("after_commit")
        return version

    def about(self, material: Material) -> dict[str, object]:
        """What a version says of the update that made it."""
        return {
            "counts": {
                "claimed": len(self.claim.revisions),
                "learn": len(material.learn),
                "held": len(material.held),
                "memory": len(material.memory),
                "settled": len(material.settled),
                "removed": material.removed,
                "repeated": material.repeated,
            },
            "seconds": {phase: round(seconds, 3) for phase, seconds in self.seconds.items()},
            "seed": self.seed,
            "lane": self.claim.lane.value,
            "kind": self.claim.kind.value,
        }

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - started


def commit_together(made: Sequence[tuple[Attempt, Outcome]]) -> list[Version]:
    """Record the parts of a family's update, or nothing; files that no row will ever name are let go."""
    first = made[0][0]
    first.kill_point("before_commit")
    try:
        versions = first.stores.queue.commit_all([(attempt.claim, outcome) for attempt, outcome in made])
    except Conflict:
        for attempt, _ in made:
            attempt.stores.weights.delete(attempt.version_id)
        raise
    first.kill_point("after_commit")
    return versions
