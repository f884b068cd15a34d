"""What this process tells the roster: that it lives, and what it serves of each model.

Owned by the Refresher, which calls it at every turn. A rollback waits until all who live have said that they followed.
"""

import os
import socket
import time
from collections.abc import Callable

from app.serving.live_model import LiveModel, LiveModels
from app.storage.servers import ServerRoster, ServingReport

BEAT_SECONDS = 1.0  # between signs of life while nothing changes; a server unseen for 5 s does not count


class Presence:
    """One entry in the roster, made anew should it be forgotten. For one thread."""

    def __init__(
        self, roster: ServerRoster, live_models: LiveModels, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._roster = roster
        self._live_models = live_models
        self._clock = clock
        self._server_id: str | None = None
        self._reported: list[ServingReport] | None = None
        self._next_beat = 0.0

    def tell(self) -> dict[int, int] | None:
        """Report what is served if that changed or it is time; model id → epoch as reported, None if nothing was."""
        if self._server_id is None:
            self._server_id = self._roster.arrive(socket.gethostname(), os.getpid())
        reports = [_report(live) for live in self._live_models.all()]
        changed = reports != self._reported
        if not changed and self._clock() < self._next_beat:
            return None
        roster, mine = self._roster, self._server_id
        if not (roster.report(mine, reports) if changed else roster.beat(mine)):
            self._server_id, self._reported = None, None  # held up so long that it was forgotten
            return None
        self._reported = reports
        self._next_beat = self._clock() + BEAT_SECONDS
        return {report.model_id: report.epoch for report in reports}

    def leave(self) -> None:
        """Sign off, so that nobody waits for this process."""
        if self._server_id is not None:
            self._roster.leave(self._server_id)


def _report(live: LiveModel) -> ServingReport:
    served = live.current
    return ServingReport(
        model_id=live.model_id,
        version_id=None if served is None else served.predictor.version_id,
        epoch=-1 if served is None else served.epoch,
        warm=tuple(live.warm_ids()),
        error=live.error,
    )
