"""The threads that run batches: some with a core each, and one that has all cores for what comes alone.

Owned by the Batcher, whose queues it empties; woken by what arrives, nothing polls. Knows nothing of what a batch is.
"""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from app.serving.ask import Part
from app.serving.model_queue import ModelQueue
from app.serving.pace import COMPUTING, step_back

QUIET_SECONDS = 0.1  # since requests last met: the next one is taken to be alone
WEIGHT = 1 / 16  # of the newest pass in what passes take
HOPE = 0.75  # of the time on one core: what a pass over all is taken to need before it was tried
BACK_OFF_SECONDS = 1.0  # without wide passes, once they took longer than others; twice as long each time that follows
LONGEST_BACK_OFF_SECONDS = 300.0
MANY = 100  # wide passes in a row that were worth it, and the next back-off is a short one again
REMEMBERED = 1000  # models and numbers of inputs

Batch = list[Part[Any]]


class Crew:
    """Takes batches out of the queues, the models in turn. Queues are touched under `lock` alone.

    A pass over several cores is sooner but wastes some of them, so it is for requests that do not meet: while they
    do, each thread runs a batch of its own. The two are never at work at the same time, since threads that share a
    pass wait for one another and lose far more than the core that is taken from one of them.
    """

    def __init__(
        self, threads: int, run: Callable[[ModelQueue, Batch], None], widen: Callable[[], None] | None = None
    ) -> None:
        """`run` answers a batch; `widen` gives the thread that calls it all cores, None where it has no more."""
        self.lock = threading.Lock()
        self._run = run
        self._widen = widen
        self._queues: list[ModelQueue] = []  # whose turn it is, first
        self._changed = threading.Condition(self.lock)
        self._alone = threading.Condition(self.lock)  # of the wide thread
        self._idle = 0
        self._running = 0
        self._wide_there = self._wide_runs = False
        self._stopping = False
        self._quiet_at = -math.inf  # from then on, what comes is alone
        self._tries = Tries()
        self._threads = [
            threading.Thread(target=self._work, name=f"inference-{n}", daemon=True) for n in range(threads)
        ]
        if widen is not None:
            self._threads.append(threading.Thread(target=self._work_alone, name="inference-wide", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads when all that waits is answered."""
        with self.lock:
            self._stopping = True
            self.wake_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=30)

    def add(self, queue: ModelQueue) -> None:
        """Empty this queue too; under the lock."""
        self._queues.append(queue)

    def note_meeting(self) -> None:
        """Take in that a request has come while another one was in work."""
        self._quiet_at = time.perf_counter() + QUIET_SECONDS

    @property
    def quiet(self) -> bool:
        """Whether requests have not met for a while: what comes now is likely to be alone."""
        return time.perf_counter() >= self._quiet_at

    @property
    def free(self) -> bool:
        """Whether a batch would begin at once."""
        return self._idle > 0 and not self._wide_runs and not any(map(len, self._queues))

    def wake(self) -> None:
        """Have a thread look at what waits; under the lock."""
        if self._wide_runs:
            return  # it looks itself once it is done
        now = time.perf_counter()
        wide = self._may_be_wide(now) and self._is_for_all_cores(self._next_due(now)[1], now)
        (self._alone if wide else self._changed).notify()

    def wake_all(self) -> None:
        """Have all look again, as the rules have changed; under the lock."""
        self._changed.notify_all()
        self._alone.notify_all()

    def _is_for_all_cores(self, queue: ModelQueue | None, now: float) -> bool:
        """Whether the next batch, all of this queue, is run by the wide thread."""
        return self._may_be_wide(now) and queue is not None and self._tries.know((queue.name, len(queue)))

    def _may_be_wide(self, now: float) -> bool:
        if not self._wide_there or self._wide_runs or self._running or self._stopping:
            return False
        return now >= max(self._quiet_at, self._tries.next_at)

    # On threads

    def _work(self) -> None:
        step_back(COMPUTING)
        while True:
            with self.lock:
                found = self._wait()
                if found is None:
                    return
                self._running += 1
            begun = time.perf_counter()
            try:
                self._run(*found)
            finally:
                seconds = time.perf_counter() - begun
                with self.lock:
                    self._running -= 1
                    self._tries.note_narrow(_size(*found), seconds)

    def _work_alone(self) -> None:
        step_back(COMPUTING)
        if self._widen is not None:
            self._widen()
        self._wide_there = True
        while True:
            with self.lock:
                found = self._wait_alone()
                if found is None:
                    return
                self._wide_runs = True
            begun = time.perf_counter()
            try:
                self._run(*found)
            finally:
                ended = time.perf_counter()
                with self.lock:
                    self._wide_runs = False
                    self._tries.note_wide(_size(*found), ended - begun, ended)

    def _wait(self) -> tuple[ModelQueue, Batch] | None:
        """Wait until a batch may start and take it out; None when all is answered and the crew ends."""
        while True:
            now = time.perf_counter()
            due, queue = self._next_due(now)
            if queue is None and self._stopping:
                return None
            patience = math.inf
            if queue is not None and not self._wide_runs:
                if due > now and not self._stopping:
                    patience = due - now
                elif not self._is_for_all_cores(queue, now):
                    return queue, self._taken(queue)
                else:
                    self._alone.notify()
            self._idle += 1
            self._changed.wait(None if patience == math.inf else patience)
            self._idle -= 1

    def _wait_alone(self) -> tuple[ModelQueue, Batch] | None:
        """Wait until one request waits, all alone; None when the crew ends, as the others answer the rest."""
        while not self._stopping:
            now = time.perf_counter()
            due, queue = self._next_due(now)
            if queue is not None:
                if due <= now and self._is_for_all_cores(queue, now):
                    return queue, self._taken(queue)
                self._changed.notify_all()  # it is theirs, or they wait until it is due
            self._alone.wait()
        self._changed.notify_all()
        return None

    def _next_due(self, now: float) -> tuple[float, ModelQueue | None]:
        """Find the batch that may start first, the models in turn, and when it may."""
        first: tuple[float, ModelQueue | None] = (math.inf, None)
        for queue in self._queues:
            due = queue.due_at()
            if due is not None and due < first[0]:
                first = due, queue
                if due <= now:
                    break
        return first

    def _taken(self, queue: ModelQueue) -> Batch:
        self._queues.remove(queue)
        self._queues.append(queue)  # the others come first next time
        return queue.take()


def _size(queue: ModelQueue, batch: Batch) -> tuple[str, int]:
    return queue.name, sum(map(len, batch))


class Tries:
    """Whether passes over all cores are worth it: not while other processes are on those cores.

    Threads that share a pass wait for one another, so one that has lost its core to another process holds up all.
    Passes are told apart by their model and number of inputs.
    """

    def __init__(self) -> None:
        self._narrow: dict[tuple[str, int], float] = {}  # seconds
        self._wide: dict[tuple[str, int], float] = {}
        self._back_off = BACK_OFF_SECONDS
        self._well = 0
        self.next_at = -math.inf

    def know(self, size: tuple[str, int]) -> bool:
        """Whether it is known how long such a pass takes on one core, to compare with."""
        return size in self._narrow

    def note_narrow(self, size: tuple[str, int], seconds: float) -> None:
        """Take in how long a pass took on one core."""
        if len(self._narrow) >= REMEMBERED:
            self._narrow.clear()
            self._wide.clear()
        self._narrow[size] = _moved(self._narrow.get(size, seconds), seconds)

    def note_wide(self, size: tuple[str, int], seconds: float, now: float) -> None:
        """Take in how long a pass took on all of them that has just ended."""
        narrow = self._narrow.get(size, seconds)
        wide = _moved(self._wide.get(size, HOPE * narrow), seconds)
        if wide <= narrow:
            self._wide[size] = wide
            self._well += 1
            if self._well >= MANY:
                self._back_off = BACK_OFF_SECONDS
        else:
            self._wide.pop(size, None)
            self._well = 0
            self.next_at = now + self._back_off
            self._back_off = min(2 * self._back_off, LONGEST_BACK_OFF_SECONDS)


def _moved(mean: float, newest: float) -> float:
    return mean + WEIGHT * (newest - mean)
