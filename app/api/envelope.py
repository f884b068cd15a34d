"""What surrounds every answer: security headers, the check of Host and Origin, and the answer to the unforeseen.

Pure ASGI, the outermost layer. Knows nothing of routes.
"""

import uuid
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.error_handlers import problem
from app.errors import PerennialError
from app.log import get_logger

log = get_logger(__name__)

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


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
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("X-Frame-Options", "DENY")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            if self._foreign(Headers(scope=scope)):
                answer = problem(403, "This server listens on loopback and answers only to its own name.")
                await answer(scope, receive, send_with_headers)
                return
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            log.debug("client went away", path=scope["path"])
        except Exception as error:  # the last line: whoever asked gets an answer without internals
            if started:
                raise
            known = isinstance(error, PerennialError)
            incident = str(uuid.uuid4())
            log.error("request failed", incident=incident, path=scope["path"], known=known, exc_info=True)
            answer = problem(
                500,
                "Something went wrong here; the server's log has it under this incident.",
                kind="incident",
                members={"incident": incident},
            )
            await answer(scope, receive, send_with_headers)

    def _foreign(self, headers: Headers) -> bool:
        if self._hosts is None:
            return False
        host = headers.get("host")
        if host and _hostname(f"//{host}") not in self._hosts:
            return True
        origin = headers.get("origin")
        return origin is not None and _hostname(origin) not in self._hosts


def _hostname(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:  # no address at all
        return None
