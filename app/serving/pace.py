"""Who goes first: the event loop, then what computes, then loading, whose threads work with breaks besides.

Made by the composition root, called between the steps of a load. Knows nothing of what is loaded.
"""

import ctypes
import os
import platform
import struct
import sys
import threading
import time
from collections.abc import Callable

SHARE = 0.25
"""Of a core: what a load takes while requests are in work. It is done all the same, in four times its time."""

COMPUTING, LOADING = 4, 9
"""How far threads that decode and compute step back behind the event loop, and threads that load behind those.

The event loop's work is short, and all wait for it: beside threads that compute without pause its own would wait
milliseconds for a processor each time it wakes up.
"""

_LEAST = 19  # favour that there is

LONG_SLICE_NS = 4_000_000
"""Longer than the scheduler's own slice, 0.7 to 3 ms."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the system call's number

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


def step_back(by: int = LOADING) -> None:
    """Let the scheduler favour others over the calling thread by so much niceness, where it knows threads.

    Counted from the process's first thread, the event loop's.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        already = os.getpriority(os.PRIO_PROCESS, thread)  # to have less than the process has is not granted
        wanted = min(_LEAST, os.getpriority(os.PRIO_PROCESS, os.getpid()) + by)
        os.setpriority(os.PRIO_PROCESS, thread, max(wanted, already))


def give_way_at_once() -> None:
    """Let whoever wakes up take the processor from the calling thread at once, where Linux can (from 6.12 on).

    A thread runs to the end of its slice before one that woke up, which is then late by 1 to 3 ms, unless the other's
    slice is the shorter one. So a longer slice is the lesser claim, and takes no share away: unlike in the idle class,
    a thread that has a lock gets on with it.
    """
    number = _SCHED_SETATTR.get(platform.machine()) if sys.platform == "linux" else None
    if number is None:
        return
    nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    # struct sched_attr: size, policy (SCHED_OTHER), flags, nice, priority, runtime (the slice), deadline, period
    wanted = struct.pack("IIQiIQQQ", 48, os.SCHED_OTHER, 0, nice, 0, LONG_SLICE_NS, 0, 0)
    ctypes.CDLL(None).syscall(number, 0, ctypes.c_char_p(wanted), 0)  # an old kernel ignores it, or refuses
