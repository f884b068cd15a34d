"""The short way for the one call that counts: POST predict with a key that is known and nothing else to decide.

Pure ASGI, inside the limits of bodies and around the application. What the general way would find out anew for each
request (which of all routes, which dependencies, which exits to keep) is known here, and left out. Everything else,
a query, an unknown key, a strange name, goes the general way, which also describes this call.
"""

import re

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import predict
from app.api.deps import Parts
from app.api.error_handlers import invalid_request, problem_of
from app.api.key_cache import RANK
from app.api.key_cache import Scope as KeyScope
from app.errors import PerennialError
from app.recipe import MODEL_NAME

_PATH = re.compile(rf"/v1/models/({MODEL_NAME.strip('^$')})/predict")
_BEARER = b"Bearer "


class Express:
    """Answers what it can by `predict.answer`, and hands the rest on."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app = app
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        model = self._model(scope)
        if model is None:
            await self._app(scope, receive, send)
            return
        answer: Response
        try:
            answer = await predict.answer(Request(scope, receive), model, self._parts)
        except PerennialError as error:
            answer = problem_of(error)
        except RequestValidationError as error:
            answer = invalid_request(error)
        await answer(scope, receive, send)

    def _model(self, scope: Scope) -> str | None:
        """Name the model that a request asks, None if it is not for the short way."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"] or scope.get("root_path"):
            return None
        found = _PATH.fullmatch(scope["path"])
        if found is None:
            return None
        return found[1] if self._may_predict(scope) else None

    def _may_predict(self, scope: Scope) -> bool:
        if not self._parts.auth:
            return True
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(sent) != 1 or not sent[0].startswith(_BEARER):
            return False
        caller = self._parts.key_cache.known(sent[0][len(_BEARER) :].decode("latin-1"))
        return caller is not None and RANK[caller.scope] >= RANK[KeyScope.PREDICT]
