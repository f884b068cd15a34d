"""One request's items on their way through the Batcher: what is asked, by when, and what has been answered so far.

Made and finished on the event loop; threads read it and fill `decoded`. Knows nothing of HTTP or of queues.
"""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from app.errors import InvalidItem

A = TypeVar("A")

Ended = Callable[[list[A] | None, Exception | None], None]
"""Hears once what became of a request: its answers, None when its client has gone, or why there are none."""


class Answering(Protocol[A]):
    """What answers: one version, or those of a family. Requests with equal keys may share a forward pass."""

    @property
    def key(self) -> Hashable: ...
    @property
    def name(self) -> str:
        """Whose queue the request stands in."""

    @property
    def cheap(self) -> bool:
        """Whether payloads are numbers for the processor it runs on, so that decoding them costs next to nothing."""

    def decode_many(self, contents: Sequence[bytes]) -> Sequence[Tensor | InvalidItem]: ...
    def predict(self, items: Sequence[Tensor], top_k: int) -> Sequence[A]: ...
    def trimmed(self, answer: A, top_k: int) -> A: ...
    def note(self, items: Sequence[Tensor]) -> None:
        """Hear of a batch that was answered."""


class Ask(Generic[A]):
    """A request: it is answered whole, by one version, or fails whole."""

    __slots__ = ("answers", "arrived", "contents", "deadline", "ended", "left", "loop", "missing", "predictor", "top_k")

    def __init__(
        self,
        predictor: Answering[A],
        contents: Sequence[bytes],
        top_k: int,
        ended: Ended[A],
        *,
        arrived: float,
        deadline: float,
    ) -> None:
        """Times are of `time.perf_counter`. On the event loop only."""
        self.predictor = predictor
        self.contents = contents
        self.top_k = top_k
        self.ended = ended
        self.arrived = arrived
        self.deadline = deadline
        self.left = False  # nobody waits any more
        self.loop = asyncio.get_running_loop()
        self.answers: list[A | None] = [None] * len(contents)
        self.missing = len(contents)

    def take(self, start: int, answers: Sequence[A]) -> None:
        """Put answers where they belong; with the last ones the request is answered."""
        self.answers[start : start + len(answers)] = answers
        self.missing -= len(answers)
        if self.missing == 0:
            self.end(self.answers)  # type: ignore[arg-type]  # none is missing

    def end(self, answers: list[A] | None) -> None:
        """Let who waits go on with the answers, or with None: the client has gone."""
        self._settle(answers, None)

    def fail(self, error: Exception) -> None:
        """Let who waits hear of the error."""
        self._settle(None, error)

    def _settle(self, answers: list[A] | None, error: Exception | None) -> None:
        if not self.left:
            self.left = True
            self.ended(answers, error)


class Part(Generic[A]):
    """Some of a request's items, few enough for one batch."""

    __slots__ = ("ask", "decode_seconds", "decoded", "start", "stop")

    def __init__(self, ask: Ask[A], start: int, stop: int) -> None:
        self.ask = ask
        self.start = start
        self.stop = stop
        self.decoded: list[Tensor] | None = None
        self.decode_seconds = 0.0

    def __len__(self) -> int:
        return self.stop - self.start
