"""Runs predictions off the event loop: bounded in number, with a deadline, and not for those who have left.

The predict endpoint awaits `answer`; a batcher that joins requests will stand in the same place, between the
endpoint and the Predictor, with the same call. Knows nothing of HTTP.
"""

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

from torch import Tensor

from app.errors import DeadlineExceeded, InvalidItem, Overloaded

T = TypeVar("T")
A_co = TypeVar("A_co", covariant=True)

PASS_ITEMS = 64  # in one forward pass; between passes a request that nobody waits for ends


class Answering(Protocol[A_co]):
    """What answers: one version, or those of a family."""

    def decode(self, content: bytes) -> Tensor: ...
    def predict(self, items: Sequence[Tensor], top_k: int) -> Sequence[A_co]: ...


class InferencePool:
    """A few threads and a bound on the requests in work."""

    def __init__(self, *, threads: int, inflight_limit: int, request_seconds: float) -> None:
        self._threads = threads
        self._inflight_limit = inflight_limit
        self._request_seconds = request_seconds
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._seconds_per_request = 0.05  # a running mean, for Retry-After
        self.inflight = 0

    def require_room(self) -> None:
        """Raise Overloaded when too many requests are in work."""
        if self.inflight >= self._inflight_limit:
            wait = self.inflight * self._seconds_per_request / self._threads
            raise Overloaded("The prediction queue", max(1, math.ceil(wait)))

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request in for the block's time; Overloaded when too many are in work. On the event loop only."""
        self.require_room()
        self.inflight += 1
        started = time.monotonic()
        try:
            yield
        finally:
            self.inflight -= 1
            self._seconds_per_request += 0.05 * (time.monotonic() - started - self._seconds_per_request)

    async def answer(self, predictor: Answering[T], contents: Sequence[bytes], top_k: int) -> list[T]:
        """Answer each payload with this predictor, in order; InvalidItem names the index that cannot be used."""
        left = threading.Event()
        return await self._until_deadline(left, lambda: _answer(predictor, contents, top_k, left))

    async def call(self, function: Callable[[], T]) -> T:
        """Run something else that must not hold up the event loop, under the same deadline."""
        return await self._until_deadline(threading.Event(), function)

    async def _until_deadline(self, left: threading.Event, function: Callable[[], T]) -> T:
        """Wait for the thread's result; a call not begun when its waiter goes is never begun."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, function)
        try:
            return await asyncio.wait_for(future, self._request_seconds)
        except TimeoutError:
            raise DeadlineExceeded(self._request_seconds) from None
        finally:
            left.set()

    def stop(self) -> None:
        """End the threads when their current call has ended."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _answer(predictor: Answering[T], contents: Sequence[bytes], top_k: int, left: threading.Event) -> list[T]:
    answers: list[T] = []
    for start in range(0, len(contents), PASS_ITEMS):
        if left.is_set():
            break
        answers += predictor.predict(_decoded(predictor, contents[start : start + PASS_ITEMS], start), top_k)
    return answers


def _decoded(predictor: Answering[T], contents: Sequence[bytes], first: int) -> list[Tensor]:
    items = []
    for index, content in enumerate(contents, first):
        try:
            items.append(predictor.decode(content))
        except InvalidItem as error:
            raise InvalidItem(error.code, f"inputs[{index}]: {error.detail}") from error
    return items


async def while_connected(answering: Awaitable[T], leaving: Awaitable[object]) -> T | None:
    """Give the answer, or None as soon as `leaving` ends first; then the answer is called off."""
    answer = asyncio.ensure_future(answering)
    gone = asyncio.ensure_future(leaving)
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return await answer
        answer.cancel()
        await asyncio.wait({answer})
        return None
    finally:
        gone.cancel()
        answer.cancel()
