"""Request bodies that come compressed, inflated as they come in, a piece at a time.

Pure ASGI, around the limits: these count what comes out, so a small body that swells is cut off where it crosses
them. Knows nothing of routes.
"""

import asyncio
import zlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.error_handlers import Malformed
from app.errors import Unsupported

PIECE_BYTES = 256 << 10  # inflated at a time: about a millisecond of the event loop
IDLE_BYTES = 1 << 20  # that may come in beyond what came out

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class Inflation:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        coding = ""
        if scope["type"] == "http":
            coding = Headers(scope=scope).get("content-encoding", "").strip().lower()
        plain = coding in ("", "identity")
        await self._app(scope, receive if plain else _Inflated(coding, receive), send)


class _Inflated:
    """Receives in the place of the server: the body as it was before it was compressed."""

    def __init__(self, coding: str, receive: Receive) -> None:
        self._coding = coding
        self._receive = receive
        self._inflater = zlib.decompressobj(_WINDOWS[coding]) if coding in _WINDOWS else None
        self._waiting = b""  # came in, not inflated yet
        self._full = False  # the last piece was: more may come out without anything coming in
        self._last = False  # nothing more will come in
        self._done = False
        self._came = self._made = 0

    async def __call__(self) -> Message:
        if self._done:
            return await self._receive()  # only a disconnect is left to come
        if self._inflater is None:
            raise Unsupported("Expected a body as it is, or compressed by `gzip` or `deflate`; got another encoding.")
        if self._waiting or self._full:
            await asyncio.sleep(0)  # others' requests come between two pieces
        elif not self._last:
            message = await self._receive()
            if message["type"] != "http.request":
                self._done = True
                return message
            self._waiting = message.get("body", b"")
            self._came += len(self._waiting)
            self._last = not message.get("more_body", False)
        try:
            piece = self._inflater.decompress(self._waiting, PIECE_BYTES)
        except zlib.error:
            raise Malformed(f"The body is not {self._coding}, or was damaged on its way.") from None
        self._waiting = self._inflater.unconsumed_tail
        self._full = len(piece) == PIECE_BYTES
        self._made += len(piece)
        if self._inflater.unused_data or self._came > 2 * self._made + IDLE_BYTES:
            raise Malformed(f"The body is not one {self._coding} stream: more comes in than belongs to it.")
        more = bool(self._waiting) or self._full or not self._last
        if not more and not self._inflater.eof:
            raise Malformed(f"The body is cut short: its {self._coding} stream does not end.")
        self._done = not more
        return {"type": "http.request", "body": piece, "more_body": more}
