"""Who a key belongs to, remembered for a moment.

Called by `authorize` for every request that bears a key. Knows nothing of routes.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from starlette.concurrency import run_in_threadpool

from app.log import get_logger
from app.storage.keys import KeyRing

log = get_logger(__name__)


class Scope(StrEnum):
    """What a key may do; each includes those before it."""

    PREDICT = "predict"  # ask, and look at models and versions
    LABEL = "label"  # send, correct and withdraw samples
    ADMIN = "admin"  # everything


RANK = {scope: rank for rank, scope in enumerate(Scope)}


@dataclass(frozen=True)
class Caller:
    """Whose call it is; the name stands in receipts and events."""

    name: str
    scope: Scope


@dataclass
class Known:
    """Whose a key was found to be, and when that was asked."""

    caller: Caller
    at: float
    asked_again: bool = False


class KeyCache:
    """Remembers keys for a moment, so that not every request asks the database; a revoked key lives that long.

    Halfway through that moment the key is asked for again, once and aside, so that a busy key is never forgotten by
    all its requests at once. Requests that come together after a silence ask together.
    """

    def __init__(
        self, keys: KeyRing, *, seconds: float = 1.0, size: int = 1024, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = keys
        self._seconds = seconds
        self._size = size
        self._clock = clock
        self._known: OrderedDict[bytes, Known] = OrderedDict()  # by digest: no secret stays here
        self._asking: dict[bytes, asyncio.Task[Caller | None]] = {}

    def known(self, secret: str) -> Caller | None:
        """Give whose key it is if that was found out a moment ago; None says nothing. On the event loop only."""
        known = self._known.get(_digest(secret))
        if known is None:
            return None
        age = self._clock() - known.at
        if age >= self._seconds:
            return None
        if age >= self._seconds / 2 and not known.asked_again:
            known.asked_again = True
            self._question(secret)
        return known.caller

    async def caller(self, secret: str) -> Caller | None:
        """Give whose key it is, asking the database if need be; None if it is nobody's."""
        known = self.known(secret)
        if known is not None:
            return known
        return await asyncio.shield(self._question(secret))  # whoever leaves, others may wait for it

    def _question(self, secret: str) -> asyncio.Task[Caller | None]:
        """Ask, or give the question that is under way."""
        digest = _digest(secret)
        asking = self._asking.get(digest)
        if asking is None:
            asking = self._asking[digest] = asyncio.get_running_loop().create_task(self._ask(secret, digest))
            asking.add_done_callback(lambda asked: self._asked(digest, asked))
        return asking

    async def _ask(self, secret: str, digest: bytes) -> Caller | None:
        asked_at = self._clock()
        key = await run_in_threadpool(self._keys.find, secret)
        if key is None:
            self._known.pop(digest, None)
            return None
        caller = Caller(key.name, Scope(key.scope))
        self._known[digest] = Known(caller, asked_at)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return caller

    def _asked(self, digest: bytes, asking: asyncio.Task[Caller | None]) -> None:
        del self._asking[digest]
        if not asking.cancelled() and asking.exception() is not None:  # who asks next, hears of it
            log.warning("key not asked for", error=str(asking.exception()))


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()
