"""Looks after requests that are not answered at once. Begun and stopped by the Batcher, on the event loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from app.errors import DeadlineExceeded
from app.serving.ask import Ask

WATCH_SECONDS = 0.02  # a request older than this is asked whether its client is still there


class Watch:
    """Looks after a request that is not answered at once: its client may leave, its deadline pass."""

    def __init__(self, ask: Ask[Any], leaving: Callable[[], Awaitable[object]] | None, request_seconds: float) -> None:
        self._ask = ask
        self._leaving = leaving
        self._request_seconds = request_seconds
        self._task: asyncio.Task[None] | None = None
        delay = min(WATCH_SECONDS, request_seconds)
        self._timer: asyncio.TimerHandle | None = ask.loop.call_later(delay, self._begin)

    def stop(self) -> None:
        """Look no longer, and hold nothing that holds this: only the collector would find that, hundreds at a time."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._timer = self._task = None

    def _begin(self) -> None:
        self._timer = None
        self._task = self._ask.loop.create_task(self._watch())

    async def _watch(self) -> None:
        left = self._ask.deadline - time.perf_counter()
        try:
            async with asyncio.timeout(left):
                await (self._leaving() if self._leaving is not None else asyncio.Event().wait())
        except TimeoutError:
            self._ask.fail(DeadlineExceeded(self._request_seconds))
        else:
            self._ask.end(None)
