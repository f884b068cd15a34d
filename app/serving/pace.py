"""How loading keeps out of the way of predictions: its threads work with breaks, and the scheduler favours others.

Made by the composition root, called between the steps of a load. Knows nothing of what is loaded.
"""

import os
import sys
import threading
import time
from collections.abc import Callable

SHARE = 0.25
"""Of a core: what a load takes while requests are in work. It is done all the same, in four times its time."""

LONGEST_STEP_SECONDS = 0.25
"""Work between two calls that is rested for; what took longer was not one step of ours."""


class Pace:
    """Rests after each step of work, in proportion to it, while there are requests. Safe to call from many threads."""

    def __init__(
        self,
        busy: Callable[[], bool],
        *,
        share: float = SHARE,
        worked: Callable[[], float] = time.thread_time,
        rest: Callable[[float], object] = time.sleep,
    ) -> None:
        """`worked` tells the calling thread's own processor seconds."""
        self._busy = busy
        self._share = share
        self._worked = worked
        self._rest = rest
        self._steps = threading.local()

    def __call__(self) -> None:
        """Rest for the work since this thread's last call, if requests wait for the processor."""
        now = self._worked()
        step = min(now - getattr(self._steps, "last", now), LONGEST_STEP_SECONDS)
        if step > 0 and self._busy():
            self._rest(step * (1 - self._share) / self._share)
        self._steps.last = self._worked()


def step_back(niceness: int = 5) -> None:
    """Let the scheduler favour all other threads of this process over the calling one, where it knows threads."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        already = os.getpriority(os.PRIO_PROCESS, thread)  # to have less than the process has is not granted
        os.setpriority(os.PRIO_PROCESS, thread, max(niceness, already))
