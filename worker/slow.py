"""The slow lane beside a fast one: shared layers follow what the line holds, then the head is solved anew.

Called by the Updater for models whose head is solved. Claims nothing; while it learns, the fast lane goes on. To
publish it holds the fast lane for a moment, catches up with what was learned meanwhile, and is judged against what is
live then.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from app.errors import Conflict, NothingLearned
from app.networks.network import Network
from app.networks.serialization import backbone_digest
from app.storage.claims import Outcome
from app.storage.tables import Verdict, Version
from worker.attempt import Attempt
from worker.decoding import Decoder
from worker.featuring import FeatureSource
from worker.gate import Decision
from worker.heartbeat import Heartbeat
from worker.learning.learner import Learned
from worker.material import gather
from worker.outcomes import anchor_after
from worker.refit import with_head
from worker.report import figures, test_figures
from worker.sight import Seer, Sight, examined
from worker.sums_of_the_line import SumsOfTheLine
from worker.taught import Taught
from worker.teaching import Teaching
from worker.track import Track
from worker.verdict import decide, evidence

HOLD_SECONDS = 60.0
"""How long a slow update waits for a fast one of another worker to end."""


class SlowLane:
    """Performs slow updates, one at a time."""

    def __init__(self, decoder: Decoder, source: FeatureSource, sums: SumsOfTheLine) -> None:
        self._decoder = decoder
        self._source = source
        self._sums = sums

    def perform(self, attempt: Attempt) -> Version:
        """Fine-tune, extract features again, catch up, and publish."""
        claim, line = attempt.claim, attempt.stores.line
        with attempt.timed("load"):
            parent = attempt.loader.load(claim.parent)
            material = gather(claim, attempt.recipe, line)
        if not material.memory:
            raise NothingLearned(claim.model.name)
        with attempt.timed("learn"):
            _, state = attempt.left_behind(claim.parent)
            learn_all = replace(material, learn=material.memory, memory=())
            learned, _ = Teaching(attempt, self._decoder).learn(parent, learn_all, state)
        attempt.kill_point("after_training")
        assert isinstance(learned.network, Network)
        sight = Sight(self._source, claim.model, attempt.between_steps)
        seer = Seer(learned.network.to(attempt.device), backbone_digest(learned.network))
        with attempt.timed("features"):
            sight.fed(seer, [*line.learned(claim.model), *material.settled, *material.tests])
        with _held(attempt):
            return self._publish(attempt, sight, seer, learned, len(material.memory))

    def _publish(self, attempt: Attempt, sight: Sight, seer: Seer, learned: Learned, rehearsed: int) -> Version:
        registry, model = attempt.stores.registry, attempt.claim.model
        now_live = registry.live(model.id)
        attempt.onto(now_live.version, now_live.epoch)
        network = attempt.loader.load(now_live.version)
        live = Seer(network, attempt.loader.backbone_of(now_live.version)[1])
        sight = Sight(self._source, model, lambda: None)  # nothing may come in between from here on
        with attempt.timed("judge"):
            material = gather(attempt.claim, attempt.recipe, attempt.stores.line)
            taught = self._taught(attempt, sight, seer)
            solved = taught.heads(attempt.recipe, network.spec.labels)[0]
            candidate = Seer(with_head(seer.network, network.spec.labels, solved), seer.backbone)
            judged, sample_ids = examined(attempt, sight, material, live, candidate)
            judgement = decide(attempt, material, judged, network.spec, candidate.network.spec, evidence(taught))
            tests = sight.answers(candidate, material.tests)
        promoted = judgement.decision is Decision.PROMOTED
        taught.beside = learned.state
        weights, left = attempt.write(candidate.network.state_dict(), taught.tensors())
        taught.unsaved = 0
        version = attempt.commit(
            Outcome(
                version_id=attempt.version_id,
                spec=candidate.network.spec,
                verdict=Verdict(judgement.decision.value),
                reason=judgement.reason,
                metrics={
                    **figures(judged, sample_ids, candidate.network.spec.labels, datetime.now(UTC)),
                    "test": test_figures(material.tests, tests),
                    "prequential": Track.from_metrics(now_live.version.metrics).to_json(),
                    "anchor": anchor_after(attempt, judged, promoted),
                    "gate": judgement.metrics,
                    "learning": learned.record.to_json(),
                    "head": {"samples": taught.sums.samples, "rehearsed": rehearsed},
                    "choice": taught.choice and taught.choice.to_json(),
                    "delta": False,
                    **attempt.about(material),
                },
                weights=weights,
                learner_state=left,
            )
        )
        if promoted:
            self._sums.keep(model, taught, version.id)
        attempt.stores.features.keep_only(model.id, {live.backbone, *([seer.backbone] if promoted else [])})
        return version

    def _taught(self, attempt: Attempt, sight: Sight, seer: Seer) -> Taught:
        """The sums of all that the line holds now, of the features that the moved backbone makes."""
        forgetting = getattr(attempt.recipe.head, "forgetting", 1.0)
        taught = Taught.nothing("", seer.network.head_width, seer.made_by, forgetting)
        self._sums.follow_line(attempt, taught, sight, seer)
        self._sums.chosen(attempt, taught, sight, seer)
        return taught


@contextmanager
def _held(attempt: Attempt) -> Iterator[None]:
    """Keep the fast lane still for the length of the block; wait for one that another worker is at."""
    queue = attempt.stores.queue
    deadline = time.monotonic() + HOLD_SECONDS
    waiting = threading.Event()
    while (held := queue.hold(attempt.claim, attempt.lease_seconds)) is None:
        if attempt.should_stop() or time.monotonic() > deadline:
            raise Conflict(
                f"The fast lane of {attempt.claim.model.name!r} did not come to rest; the next run tries again."
            )
        waiting.wait(0.05)
    try:
        with Heartbeat(queue, held, attempt.lease_seconds):
            yield
    finally:
        queue.release(held, "the slow update has published or given up")
