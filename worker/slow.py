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

from app.errors import Conflict, NothingLearned
from app.networks.network import Network
from app.networks.serialization import backbone_digest
from app.storage.tables import Version
from worker.attempt import Attempt
from worker.decoding import Decoder
from worker.featuring import FeatureSource
from worker.heartbeat import Heartbeat
from worker.material import gather
from worker.refined import refined
from worker.sight import Seer, Sight
from worker.sums_of_the_line import SumsOfTheLine
from worker.teaching import Teaching

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
        seer = Seer(learned.network.to(attempt.device), backbone_digest(learned.network, attempt.pause))
        with attempt.timed("features"):
            sight.fed(seer, [*line.learned(claim.model), *material.settled, *material.tests])
        with held(attempt):
            made = refined(attempt, self._source, self._sums, seer)
            made.taught.beside = learned.state
            files = attempt.write(made.candidate.network.state_dict(), made.state())
            version = attempt.commit(made.outcome(learned.record, len(material.memory), files))
            made.settle(version, self._sums)
            return version


@contextmanager
def held(attempt: Attempt) -> Iterator[None]:
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
        with Heartbeat(queue, held, lease_seconds=attempt.lease_seconds):
            yield
    finally:
        queue.release(held, "the slow update has published or given up")
