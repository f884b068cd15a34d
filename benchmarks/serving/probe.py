"""A few requests a second beside a load, each seen by itself: when it was sent, what came back, how long it took.

The load generator mixes the times of refusals and answers; this keeps them apart.
"""

import http.client
import math
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rows import Running

SILENT = 0  # the status of a connection that broke


@dataclass(frozen=True)
class Seen:
    at: float  # of the monotonic clock
    status: int
    milliseconds: float


class Probe:
    """Threads that ask at fixed times until the block ends; one that still waits lets its next times pass.

    It then waits for the next one of them: who asks just when an answer has made room would never be refused.
    """

    def __init__(self, running: Running, body: bytes, *, threads: int = 4, per_second: float = 40) -> None:
        self._running = running
        self._body = body
        self._stop = threading.Event()
        self._period = threads / per_second
        self._threads = [
            threading.Thread(target=self._ask, args=(number * self._period / threads,)) for number in range(threads)
        ]
        self.seen: list[Seen] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, offset: float) -> None:
        system, trial = self._running.row.system, self._running.trial
        connection = http.client.HTTPConnection("127.0.0.1", trial.port, timeout=30)
        due = time.monotonic() + offset
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            started = time.monotonic()
            try:
                connection.request("POST", system.path(trial), self._body, system.headers(trial))
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException):
                status = SILENT
                connection.close()
            ended = time.monotonic()
            self.seen.append(Seen(started, status, 1000 * (ended - started)))
            due += self._period * max(1, math.ceil((ended - due) / self._period))
        connection.close()


def percentile(values: list[float], share: float) -> float:
    """The value below which so much of them lies; 0 of none."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0
