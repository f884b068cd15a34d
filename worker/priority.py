"""How the worker steps back beside the servers of its machine: told to the kernel once, at the worker's start.

Called by the composition root. Servers know nothing of it: what acts within a millisecond is the scheduler.

Under `idle` the worker runs on Linux in SCHED_IDLE: any thread of another process takes the processor from it at
once, and a processor that it occupies counts as free for a thread that wakes up. Niceness alone only makes shares
smaller, and a prediction waits for the end of the worker's slice. Elsewhere `idle` is the greatest niceness.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Literal

NICEST = 19
AUTOGROUP = Path("/proc/self/autogroup")
THREADS = Path("/proc/self/task")


def step_back(scheduling: Literal["idle", "nice"], nice: int) -> None:
    """Let this process, and every thread it makes from now on, give way to others. It cannot be taken back."""
    idle = scheduling == "idle"
    os.nice(NICEST if idle else nice)
    if sys.platform != "linux":
        return
    if idle:
        for thread in THREADS.iterdir():  # imports may have made some
            with suppress(OSError):  # it ended, or the container forbids the call: niceness is left
                os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))
    _step_back_as_a_session(NICEST if idle else nice)


def _step_back_as_a_session(nice: int) -> None:
    """Where the kernel groups processes by session (autogroup), niceness acts within one: tell it of the whole group.

    Only if this process is the session's leader: others may live in it that did not ask for it.
    """
    if os.getsid(0) == os.getpid():
        with suppress(OSError):  # a kernel without autogroups
            AUTOGROUP.write_text(str(nice))
