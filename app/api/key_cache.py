"""Who a key belongs to, remembered for a moment.

Called by `authorize` for every request that bears a key. Knows nothing of routes.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from starlette.concurrency import run_in_threadpool

from app.storage.keys import KeyRing


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


class KeyCache:
    """Remembers keys for a moment, so that not every request asks the database; a revoked key lives that long."""

    def __init__(
        self, keys: KeyRing, *, seconds: float = 1.0, size: int = 1024, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = keys
        self._seconds = seconds
        self._size = size
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()  # by digest: no secret stays here

    async def caller(self, secret: str) -> Caller | None:
        digest = sha256(secret.encode("utf-8", "surrogateescape")).digest()
        known = self._known.get(digest)
        if known is not None and self._clock() < known[0]:
            return known[1]
        key = await run_in_threadpool(self._keys.find, secret)
        if key is None or key.revoked_at is not None:
            self._known.pop(digest, None)
            return None
        caller = Caller(key.name, Scope(key.scope))
        self._known[digest] = (self._clock() + self._seconds, caller)
        while len(self._known) > self._size:
            self._known.popitem(last=False)
        return caller
