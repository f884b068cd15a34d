"""What looks after a request leaves nothing behind that only the collector would find."""

import asyncio
import gc
import weakref

import pytest

from app.serving.ask import Ask
from app.serving.watch import Watch


@pytest.mark.parametrize("begun", [False, True])
def test_a_watch_that_was_stopped_goes_without_the_collector(begun: bool) -> None:
    async def watched() -> None:
        looking, loop = asyncio.Event(), asyncio.get_running_loop()

        async def leaving() -> None:
            looking.set()
            await loop.create_future()

        ask = Ask(None, [b"1"], 5, lambda _answers, _error: None, arrived=0.0, deadline=float("inf"))  # type: ignore[arg-type]
        watch = Watch(ask, leaving, 20.0)
        if begun:
            await looking.wait()
        watch.stop()
        gone = [weakref.ref(watch)]
        del watch
        for _ in range(3):
            await asyncio.sleep(0)  # the task that was cancelled ends
        assert [one() for one in gone] == [None]

    gc.collect()
    gc.disable()
    try:
        asyncio.run(asyncio.wait_for(watched(), 20))
    finally:
        gc.enable()
