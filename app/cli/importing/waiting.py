"""Waits between stages until a model has learned what was posted, or nothing moves any more."""

import time
from collections.abc import Callable

from app.cli.importing.screen import Screen
from app.cli.importing.teacher import Teacher
from app.cli.importing.watch import Seen, Watch

LOOK_SECONDS = 0.25
NUDGE_SECONDS = 1.0  # without a change, until an update is asked for
CLAIMED_TIMES = 10  # how many times as long an update may take as nothing may move


class Waiting:
    """Looks at fixed intervals; remembers when the first taught version went live."""

    def __init__(
        self,
        teacher: Teacher,
        watch: Watch,
        screen: Screen,
        patience_seconds: float,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._teacher = teacher
        self._watch = watch
        self._screen = screen
        self._patience_seconds = patience_seconds
        self._sleep = sleep
        self._clock = clock
        self._untaught: bool | None = None  # not known before the first look
        self.first_live_seconds: float | None = None  # where this run saw it

    def until_settled(self, total: int) -> Seen:
        """Wait until the queue is drained; give the last look.

        What is too little for the trigger is asked to be learned at once. What was judged and found too little to
        judge by is left in the queue, where it waits for company: the next stage's, or later samples.
        """
        before: tuple[int, ...] = ()
        moved, nudged = self._clock(), False
        while True:
            seen = self._watch.look()
            self._screen.learned(seen, total)
            if self._untaught is None:
                self._untaught = not seen.learned
            if self._untaught and seen.learned:
                self.first_live_seconds, self._untaught = self._screen.seconds, False
            if seen.settled:
                return seen
            now = self._clock()
            if seen.progress != before:
                before, moved = seen.progress, now
            still = now - moved
            if not seen.learning:
                self._screen.say("Learning is paused or the model is pinned: the samples wait in its queue.")
                return seen
            if not seen.claimed and not nudged and still >= NUDGE_SECONDS:
                self._teacher.update_now()
                nudged, moved = True, now
            elif not seen.claimed and nudged and seen.newest > 1 and still > seen.trigger_seconds + 3:
                return seen
            if still > self._patience_seconds * (CLAIMED_TIMES if seen.claimed else 1):
                self._screen.say(
                    f"No version was made for {still:.0f} s, and {seen.queued:,} samples wait: "
                    "is a worker running? Its log may say more."
                )
                return seen
            self._sleep(LOOK_SECONDS)
