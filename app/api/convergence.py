"""Waiting until every server shows what was decided: after a model was created, a version promoted or rolled back."""

import time
from dataclasses import dataclass

from app.api.deps import Parts
from app.storage.servers import ServingState

SERVERS_SECONDS = 5.0
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Convergence:
    """The servers that were seen lately: those that show the epoch, and those that did not within the time."""

    there: tuple[ServingState, ...]
    behind: tuple[ServingState, ...]


def converged(parts: Parts, model_id: int, epoch: int) -> Convergence:
    """Wait until every fresh server reports that epoch of the model or a later one, at most 5 s."""
    deadline = time.monotonic() + SERVERS_SECONDS
    parts.siblings.tell("look")
    parts.refresher.wait_for(model_id, epoch, SERVERS_SECONDS)
    while True:
        states = parts.roster.fresh(model_id)
        behind = tuple(state for state in states if state.epoch < epoch)
        if not behind or time.monotonic() >= deadline:
            return Convergence(tuple(state for state in states if state not in behind), behind)
        time.sleep(LOOK_SECONDS)
