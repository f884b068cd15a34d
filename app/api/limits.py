"""How much a request may send, counted as the bytes come in and before anything reads them.

Pure ASGI around the application, inside the envelope. A body over its limit is cut off where it crosses it, so
a sender of 100 MB costs no more than the limit. Knows nothing of routes.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.error_handlers import Malformed
from app.errors import DeadlineExceeded, Overloaded, TooLarge

MEBIBYTE = 1 << 20
ITEM_BYTES = 10 * MEBIBYTE
BODY_BYTES = 32 * MEBIBYTE
LINE_BYTES = 14 * MEBIBYTE  # an item in base64, with its label
HELD_BYTES = 512 * MEBIBYTE  # of all bodies in work at a time
ITEMS = 256
FILES = 64
STREAMS = 16  # NDJSON bodies read at a time
STREAM_IDLE_SECONDS = 300.0
JSON_DEPTH = 32
NDJSON = "application/x-ndjson"

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


def media_type(content_type: str | None) -> str:
    """Give the bare media type in lower case; empty without one."""
    return (content_type or "").partition(";")[0].strip().lower()


def _limit(kind: str) -> tuple[int, str] | None:
    if kind == NDJSON:
        return None
    return (ITEM_BYTES, "10 MiB an item") if kind.startswith("image/") else (BODY_BYTES, "32 MiB a body")


def _declared(scope: Scope) -> tuple[str, int]:
    """Give the media type of a request and the length its body claims to have; 0 where it claims none."""
    kind, length = None, 0
    for name, value in scope["headers"]:
        if name == b"content-type" and kind is None:  # the first, even an empty one: the routes read no other
            kind = media_type(value.decode("latin-1"))
        elif name == b"content-length" and value.isdigit():
            length = int(value[:20])
    return kind or "", length


class BodyLimits:
    """Counts each body on its way in, and all of them together."""

    def __init__(self, app: ASGIApp, *, request_seconds: float) -> None:
        self._app = app
        self._request_seconds = request_seconds
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        kind, declared = _declared(scope)
        limit = _limit(kind)
        seconds = STREAM_IDLE_SECONDS if limit is None else self._request_seconds
        too_large = limit is not None and declared > limit[0]
        taken = 0
        done = False

        async def counted() -> Message:
            nonlocal taken, done
            if done:
                return await receive()  # only a disconnect is left to come
            if limit is not None and too_large:
                raise TooLarge("The body", limit[1])
            try:
                async with asyncio.timeout(seconds):
                    message = await receive()
            except TimeoutError:
                raise DeadlineExceeded(seconds) from None
            if message["type"] != "http.request":
                done = True
                return message
            done = not message.get("more_body", False)
            if limit is not None:
                arrived = len(message.get("body", b""))
                taken += arrived
                self._held += arrived
                if taken > limit[0]:
                    raise TooLarge("The body", limit[1])
                if self._held > HELD_BYTES:
                    raise Overloaded("The memory for request bodies", 1)
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._held -= taken


def check_json(body: bytes) -> None:
    """Refuse a JSON text that is no UTF-8 or nested deeper than 32, before a parser sees it."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not UTF-8: byte {error.start} cannot be read. Send UTF-8.") from None
    if body.count(b"[") + body.count(b"{") <= JSON_DEPTH:
        return
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > JSON_DEPTH:
            raise Malformed(f"The body is nested deeper than {JSON_DEPTH} levels.")


async def lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Give a stream's lines without their ends, those of a chunk together; TooLarge for one over the limit."""
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        if b"\n" in chunk:
            *whole, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            if any(len(line) > LINE_BYTES for line in whole):
                raise TooLarge("A line", "14 MiB")
            yield whole
        if len(rest) > LINE_BYTES:
            raise TooLarge("A line", "14 MiB")
    if rest:
        yield [bytes(rest)]


class Streams:
    """Bounds how many endless bodies are read at a time. On the event loop only."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Count a stream in for the block's time; Overloaded when too many are open."""
        if self._open >= self._limit:
            raise Overloaded("The number of open streams", 1)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
