"""The one place where an error gets its HTTP status; every answer that is not a success is a problem (RFC 9457).

Under /v2 the same is told in the form of that protocol. Installed by the composition root. A status is looked up
along the error's classes, so a new error of the tree needs no row here.
"""

import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from app.api.complaints import complaint
from app.api.v2.errors import error_form, speaks
from app.errors import (
    Conflict,
    Corrupt,
    DeadlineExceeded,
    Forbidden,
    Gone,
    Invalid,
    InvalidItem,
    NotFound,
    Overloaded,
    PerennialError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)

PROBLEM_JSON = "application/problem+json"
SHOWN = 20  # errors of one request that are told


class Malformed(Invalid):
    """The body cannot be read as what it says it is."""


class AllRejected(Invalid):
    """No item of the request could be taken; `members` is the answer it would have got."""

    def __init__(self, detail: str, members: dict[str, Any], status: int) -> None:
        self.members = members
        self.status = status
        super().__init__(detail)


class Interrupted(Overloaded):
    """A stream of samples was cut short by a full queue; what came before it is kept."""

    def __init__(self, detail: str, members: dict[str, Any], retry_after_seconds: int) -> None:
        super().__init__("The sample queue", retry_after_seconds)
        self.members = members
        self.args = (detail,)


STATUS: dict[type[PerennialError], int] = {
    NotFound: 404,
    Gone: 410,
    Conflict: 409,
    Malformed: 400,
    Invalid: 422,
    TooLarge: 413,
    Unsupported: 415,
    Unauthenticated: 401,
    Forbidden: 403,
    Unavailable: 503,
    Overloaded: 429,
    DeadlineExceeded: 504,
    Corrupt: 500,
    PerennialError: 500,
}


class ProblemResponse(JSONResponse):
    """An answer in the form of RFC 9457, or in that of the protocol that its address speaks."""

    media_type = PROBLEM_JSON

    def __init__(self, body: dict[str, Any], status: int, headers: dict[str, str] | None) -> None:
        self._body = body
        self._more = headers
        super().__init__(body, status_code=status, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not speaks(scope["path"]):
            await super().__call__(scope, receive, send)
            return
        form = error_form(self._body["detail"], self._body)
        await JSONResponse(form, self.status_code, self._more)(scope, receive, send)


def problem(
    status: int,
    detail: str,
    *,
    kind: str = "",
    headers: dict[str, str] | None = None,
    members: dict[str, Any] | None = None,
) -> JSONResponse:
    """Give an answer in the form of RFC 9457; `members` are extension members."""
    body = {
        "type": f"urn:perennial:problem:{kind}" if kind else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **(members or {}),
    }
    return ProblemResponse(body, status, headers)


def problem_of(error: PerennialError) -> JSONResponse:
    """Give the answer for an error of the tree, by the nearest class that has a status."""
    status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    headers: dict[str, str] = {}
    members: dict[str, Any] = {}
    match error:
        case AllRejected():
            status = error.status
            members = error.members
        case Interrupted():
            members = error.members
        case InvalidItem():
            members = {"code": error.code}
        case Unauthenticated():
            headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_seconds)
    kind = re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__).lower()
    return problem(status, str(error), kind=kind, headers=headers, members=members)


def invalid_request(error: RequestValidationError) -> JSONResponse:
    """Give the answer for a body, query or path of the wrong shape; what came is never echoed."""
    errors = [
        {
            "loc": [str(part) for part in one["loc"]],
            "code": one["type"],
            "detail": one["msg"] if one["loc"][:1] == ("body",) else complaint(one),
        }
        for one in error.errors()[:SHOWN]
    ]
    first = errors[0] if errors else {"loc": ["body"], "detail": "it is not what was expected"}
    detail = f"{'.'.join(first['loc'])}: {first['detail']}"
    if len(error.errors()) > 1:
        detail += f" (and {len(error.errors()) - 1} more in `errors`)"
    return problem(422, detail, kind="invalid-request", members={"errors": errors})


def install(app: FastAPI) -> None:
    """Give the application its handlers; unforeseen errors are the envelope's (app/api/envelope.py)."""

    async def perennial_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, PerennialError)
        return problem_of(error)

    async def validation_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return invalid_request(error)

    async def http_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        details = {
            404: "Nothing is at this address. /docs lists every call.",
            405: "This address does not take this method. /docs lists every call.",
        }
        headers = dict(error.headers) if error.headers else None
        return problem(error.status_code, details.get(error.status_code, error.detail), headers=headers)

    app.add_exception_handler(PerennialError, perennial_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)
