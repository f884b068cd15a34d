"""What surrounds every answer: security headers, the check of Host and Origin, and the answer to the unforeseen.

Pure ASGI, the outermost layer. Knows nothing of routes.
"""

import uuid
from collections.abc import Collection
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.error_handlers import problem
from app.errors import PerennialError
from app.log import get_logger

log = get_logger(__name__)

ADDED = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)
"""Headers of every answer that does not set them itself."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def incident(path: str, error: Exception) -> JSONResponse:
    """Log an unforeseen error and give the answer that names it, without internals."""
    number = str(uuid.uuid4())
    known = isinstance(error, PerennialError)
    log.error("request failed", incident=number, path=path, known=known, exc_info=error)
    return problem(
        500,
        "Something went wrong here; the server's log has it under this incident.",
        kind="incident",
        members={"incident": number},
    )


class Envelope:
    """Wraps the application.

    `hosts` names who may be asked for when the server listens on loopback, so that a page of another site whose
    name was bound to 127.0.0.1 gets nothing; None asks nothing of Host and Origin.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = list(message.get("headers", ()))
                there = {name.lower() for name, _ in headers}
                message["headers"] = headers + [header for header in ADDED if header[0] not in there]
            await send(message)

        try:
            if self._hosts is not None and self._foreign(scope):
                answer = problem(403, "This server listens on loopback and answers only to its own name.")
                await answer(scope, receive, send_with_headers)
                return
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            log.debug("client went away", path=scope["path"])
        except Exception as error:  # the last line: whoever asked gets an answer without internals
            if started:
                raise
            answer = incident(scope["path"], error)
            await answer(scope, receive, send_with_headers)

    def _foreign(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"host" and value and hostname(b"//" + value) not in (self._hosts or ()):
                return True
            if name == b"origin" and hostname(value) not in (self._hosts or ()):
                return True
        return False


@lru_cache(maxsize=64)  # the same few names stand in all requests; who sends others only slows themselves
def hostname(address: bytes) -> str | None:
    """Give the host that an address names, without its port; None if it is no address."""
    try:
        return urlsplit(address.decode("latin-1")).hostname
    except ValueError:  # no address at all
        return None
