"""Whose key it is, is asked once however many come together, and whoever leaves takes it from nobody."""

import asyncio
from collections.abc import Iterator

import pytest

from app.api.key_cache import KeyCache
from app.storage.database import Database
from app.storage.keys import Holder, KeyRing

TOGETHER = 16


class Counted(KeyRing):
    """A key ring that knows how often it was asked."""

    asked = 0

    def find(self, secret: str) -> Holder | None:
        self.asked += 1
        return super().find(secret)


@pytest.fixture
def ring(url: str) -> Iterator[Counted]:
    database = Database(url)
    yield Counted(database)
    database.close()


def test_requests_that_come_together_ask_once(ring: Counted) -> None:
    _, secret = ring.create("busy", "predict")
    cache = KeyCache(ring, clock=lambda: 0.0)

    async def together(secret: str) -> list[str | None]:
        callers = await asyncio.gather(*(cache.caller(secret) for _ in range(TOGETHER)))
        return [caller and caller.name for caller in callers]

    assert asyncio.run(together(secret)) == ["busy"] * TOGETHER
    assert ring.asked == 1
    assert asyncio.run(together("nobody's")) == [None] * TOGETHER
    assert ring.asked == 2


def test_who_leaves_while_it_is_asked_takes_the_answer_from_nobody(ring: Counted) -> None:
    _, secret = ring.create("busy", "predict")
    cache = KeyCache(ring)

    async def one_leaves() -> str | None:
        leaving, staying = (asyncio.ensure_future(cache.caller(secret)) for _ in range(2))
        await asyncio.sleep(0)  # both have begun
        leaving.cancel()
        caller = await staying
        assert leaving.cancelled()
        return caller and caller.name

    assert asyncio.run(one_leaves()) == "busy"
    assert ring.asked == 1


def test_an_error_reaches_all_who_asked_and_is_not_remembered(ring: Counted) -> None:
    _, secret = ring.create("busy", "predict")
    cache = KeyCache(ring)

    class Gone(Exception):
        """The database."""

    async def asked() -> list[object]:
        return await asyncio.gather(*(cache.caller(secret) for _ in range(3)), return_exceptions=True)

    def gone(_: str) -> Holder | None:
        raise Gone

    ring.find = gone  # type: ignore[method-assign]
    assert [type(one) for one in asyncio.run(asked())] == [Gone] * 3
    del ring.find
    assert None not in asyncio.run(asked())
