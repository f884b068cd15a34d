"""Runs what must not hold up the event loop and is no prediction: a version loaded on demand, a look at the database.

A few threads of their own, so that a slow load delays no answer. Knows nothing of HTTP.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.errors import DeadlineExceeded

T = TypeVar("T")


class Aside:
    """Some threads and a deadline."""

    def __init__(self, *, threads: int, request_seconds: float) -> None:
        self._request_seconds = request_seconds
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="aside")

    async def call(self, function: Callable[[], T]) -> T:
        """Give the function's result; DeadlineExceeded if it takes too long. One not begun by then never is."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, function)
        try:
            return await asyncio.wait_for(future, self._request_seconds)
        except TimeoutError:
            raise DeadlineExceeded(self._request_seconds) from None

    def stop(self) -> None:
        """End the threads when their current call has ended."""
        self._executor.shutdown(wait=True, cancel_futures=True)
