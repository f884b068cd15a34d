"""The short way for the one call that counts: POST predict with a known key and a small body, nothing else to decide.

Before everything, called by the protocol with a whole request or through ASGI: what the layers around the general way
find out anew for each request (limits, headers, which of all routes, which dependencies, which exits to keep) is looked
at here in one pass, and answered by the same function. Everything else goes the general way, which also describes this
call: another body, a query, an unknown key, a foreign host, a strange name, a long or compressed body.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from fastapi.exceptions import RequestValidationError
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.api import predict
from app.api.asked import Asked, from_json
from app.api.body import SMALL_BYTES, parse_json
from app.api.deps import Parts
from app.api.envelope import ADDED, hostname, incident
from app.api.error_handlers import invalid_request, problem_of
from app.api.key_cache import RANK
from app.api.key_cache import Scope as KeyScope
from app.api.payloads import Payload
from app.api.quick_json import quickly_read
from app.api.schemas.predict import PredictRequest
from app.errors import DeadlineExceeded, PerennialError
from app.recipe import MODEL_NAME

_PATH = re.compile(rf"/v1/models/({MODEL_NAME.strip('^$')})/predict".encode())
_DECIDING = {b"origin", b"content-encoding", b"transfer-encoding", b"expect", b"upgrade"}
_BEARER = b"Bearer "
_JSON = b"application/json"


class Left(Exception):
    """The client has gone before its request was whole."""


@dataclass(frozen=True, slots=True)
class Quick:
    """A request for the short way: whose model it asks, and of which type its body is."""

    model: str
    kind: bytes


class Express:
    """Answers what it takes by `predict.answer`."""

    def __init__(self, parts: Parts, *, hosts: Collection[str] | None, request_seconds: float) -> None:
        """`hosts` is as for the Envelope."""
        self._parts = parts
        self._hosts = hosts
        self._request_seconds = request_seconds

    def takes(self, scope: Scope) -> Quick | None:
        """Say whether a request that came through ASGI is for the short way."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"] or scope.get("root_path"):
            return None
        return self.takes_post(scope["path"].encode(), scope["headers"])

    def takes_post(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Quick | None:
        """Say whether a POST is for the short way, by its target and its headers, which have lower-case names."""
        found = _PATH.fullmatch(target)
        if found is None:
            return None
        key = kind = length = None
        for name, value in headers:
            if name == b"authorization":
                if key is not None:
                    return None
                key = value
            elif name == b"content-type":
                if kind is not None:
                    return None
                kind = value
            elif name == b"content-length":
                length = value
            elif name == b"host":
                if self._hosts is not None and hostname(b"//" + value) not in self._hosts:
                    return None
            elif name in _DECIDING:
                return None
        if kind is None or not (kind == _JSON or kind.startswith(b"image/")):
            return None
        if length is None or not length.isdigit() or int(length[:20]) > SMALL_BYTES:
            return None
        return Quick(found[1].decode(), kind) if self._may_predict(key) else None

    async def answer(self, quick: Quick, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that was taken and comes through ASGI."""
        answer = await self.respond(quick, lambda: self._body(receive), lambda: _gone(receive))
        if answer is None:
            return
        headers = [*answer.raw_headers, *ADDED]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def respond(
        self, quick: Quick, body: Callable[[], Awaitable[bytes]], leaving: Callable[[], Awaitable[object]]
    ) -> Response | None:
        """Answer a request that was taken, whatever happens; None if its client left before it was whole.

        `body` reads it, `leaving` ends when the client has gone. Headers that every answer has are not among the
        answer's.
        """

        async def asking() -> Asked:
            return _asked(quick, await body())

        try:
            return await predict.answer(self._parts, quick.model, asking, leaving)
        except Left:
            return None
        except Exception as error:  # noqa: BLE001  the last line, as the envelope is for the general way
            return _problem(quick, error)

    def answers_in_turn(self, quick: Quick, body: bytes, send: Callable[[Response], None], asker: int) -> bool:
        """Answer a whole request within this turn of the event loop, if its network is over in a blink; say so.

        `send` is called once; `asker` stands for the connection. What is unusual about the body is left to `respond`.
        """
        question = quickly_read(body) if quick.kind == _JSON else None
        if question is None:
            return False

        def ended(answer: Callable[[], Response]) -> None:
            try:
                made = answer()
            except Exception as error:  # noqa: BLE001  as above
                made = _problem(quick, error)
            send(made)

        try:
            return predict.answer_in_turn(self._parts, quick.model, question, ended, asker)
        except Exception as error:  # noqa: BLE001  as above
            send(_problem(quick, error))
            return True

    def _may_predict(self, sent: bytes | None) -> bool:
        if not self._parts.auth:
            return True
        if sent is None or not sent.startswith(_BEARER):
            return False
        caller = self._parts.key_cache.known(sent[len(_BEARER) :].decode("latin-1"))
        return caller is not None and RANK[caller.scope] >= RANK[KeyScope.PREDICT]

    async def _body(self, receive: Receive) -> bytes:
        """Read the body; the server holds it to the length that the headers gave, which is small."""
        try:
            async with asyncio.timeout(self._request_seconds):
                body, more = _piece(await receive())
                while more:
                    piece, more = _piece(await receive())
                    body += piece
        except TimeoutError:
            raise DeadlineExceeded(self._request_seconds) from None
        return body


def _problem(quick: Quick, error: Exception) -> Response:
    """Give the answer for what went wrong."""
    match error:
        case PerennialError():
            return problem_of(error)
        case RequestValidationError():
            return invalid_request(error)
    return incident(f"/v1/models/{quick.model}/predict", error)


def _asked(quick: Quick, body: bytes) -> Asked:
    if quick.kind != _JSON:
        return Asked([Payload("image", body)])
    return quickly_read(body) or from_json(parse_json(body, PredictRequest))


def _piece(message: Message) -> tuple[bytes, bool]:
    if message["type"] != "http.request":
        raise Left
    return message.get("body", b""), message.get("more_body", False)


async def _gone(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
