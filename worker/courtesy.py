"""How the worker rests while predictions are computed beside it: between two operations, within a bound.

Entered by the update around all that it computes. The scheduler takes the processor from the worker at once, but only
the one that a prediction runs on: what the worker computes on the others still slows it down, since they share
execution units, caches and memory. So it stops there too, between the parts of a long operation as well, and goes on
in the gaps between predictions.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from torch.utils._python_dispatch import TorchDispatchMode

from worker.cuts import in_parts

LOOK_SECONDS = 0.0003  # between two looks whether predictions are still in work
CROWD = 2  # predictions in work that it lets pass even beyond its bound …
STEP_SECONDS = 0.2  # … one more for each so long that it is beyond it …
CROWD_SECONDS = 1.0  # … by so much at most, and makes up for it while there are fewer


class Traffic(Protocol):
    """What the servers of this host say of themselves."""

    @property
    def in_work(self) -> int: ...

    @property
    def recent(self) -> bool: ...


class NoTraffic:
    """Nobody to be considerate of."""

    in_work, recent = 0, False


class Courtesy:
    """Rests between the tensor operations of a `with` block, if there were predictions within the last second.

    In all it is away from work at most `most` times as long as it works, in processor seconds, whether it rested or
    the scheduler gave the processor to others: so a host that is never without predictions learns all the same. Where
    it has to work beside predictions, it does so beside few: beyond its bound it lets a crowd pass, and the further it
    is beyond, the more they have to be. Else it would owe so much one day that it works beside any crowd, and makes it
    the longer.
    """

    def __init__(
        self,
        traffic: Traffic | None = None,
        *,
        most: float = 1.6,
        worked: Callable[[], float] = time.thread_time,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """`worked` tells the calling thread's own processor seconds."""
        self._traffic = traffic or NoTraffic()
        self._most = most
        self._worked = worked
        self._clock = clock
        self._sleep = sleep
        self._began = self._before = 0.0
        self._depth = 0  # an update may hold another one, of the fast lane
        self._between: _Between | None = None

    def __enter__(self) -> Self:
        if self._depth == 0:
            self._began, self._before = self._clock(), self._worked()
        self._depth += 1
        self.look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0 and self._between is not None:
            self._between.__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
            self._between = None

    def look(self) -> None:
        """Rest if predictions are in work, and from now on before each operation too; called between two steps.

        Stopping at each operation costs some microseconds apiece, so it only begins when there are predictions.
        """
        if self._between is None and self._most > 0 and self._traffic.recent:
            self._between = _Between(self.rest)
            self._between.__enter__()  # type: ignore[no-untyped-call]
        self.rest()

    def rest(self) -> None:
        """Wait until no prediction is in work, or beyond the bound until they are no crowd."""
        if self._depth == 0 or not self._traffic.in_work:
            return
        stopped = self._worked()
        until = self._began + (1 + self._most) * (stopped - self._before)
        while self._traffic.in_work >= self._too_many(self._clock() - until):
            self._sleep(LOOK_SECONDS)
        self._before += self._worked() - stopped  # to look is no work

    @staticmethod
    def _too_many(beyond: float) -> float:
        """How many predictions in work it rests for, so many seconds beyond its bound."""
        if beyond < 0:
            return 1
        return CROWD + beyond // STEP_SECONDS if beyond < CROWD_SECONDS else math.inf


class _Between(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls something before each tensor operation of this thread, backward too, and between the parts of long ones."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._call = call

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._call()
        return in_parts(self._call, func, args, kwargs or {})
