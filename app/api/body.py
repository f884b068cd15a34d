"""Bodies read by the routes themselves, after the caller is known: JSON into its form, and how OpenAPI tells it.

FastAPI's own reading would come before any check of the key.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.concurrency import run_in_threadpool

from app.api.complaints import complaint, place
from app.api.error_handlers import SHOWN, Malformed
from app.api.limits import NDJSON, check_json, media_type
from app.errors import Unsupported

FormT = TypeVar("FormT", bound=BaseModel)

JSON = "application/json"
SMALL_BYTES = 64 << 10  # parsed on the event loop; more goes to a thread


async def read_json(request: Request, form: type[FormT], *, empty: FormT | None = None) -> FormT:
    """Read a JSON body into its form; a body left out is `empty` where that is given."""
    kind = media_type(request.headers.get("content-type"))
    if kind != JSON and (empty is None or kind == NDJSON):  # before a byte is read: NDJSON may be without end
        raise unsupported(request, JSON)
    body = await request.body()
    if empty is not None and not body:
        return empty
    if kind != JSON:
        raise unsupported(request, JSON)
    if len(body) <= SMALL_BYTES:
        return parse_json(body, form)
    return await run_in_threadpool(parse_json, body, form)


def parse_json(body: bytes, form: type[FormT]) -> FormT:
    """Parse a JSON text; Malformed if it is none, RequestValidationError if it has another shape."""
    check_json(body)
    try:
        return form.model_validate_json(body, strict=True)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        if errors[0]["type"] == "json_invalid":
            raise Malformed(f"The body is not JSON: {errors[0]['msg'].removeprefix('Invalid JSON: ')}.") from None
        raise RequestValidationError(in_body(errors, form)) from None


def in_body(errors: Sequence[ErrorDetails], form: type[BaseModel], *above: str) -> list[dict[str, Any]]:
    """Give pydantic's errors the place in the request that FastAPI's own have; the ones that are shown in words."""
    return [
        {
            "type": one["type"],
            "loc": ("body", *above, *(place(one["loc"], form) if number < SHOWN else ())),
            "msg": complaint(one, form) if number < SHOWN else "",
        }
        for number, one in enumerate(errors)
    ]


def described(form: type[BaseModel], *, required: bool = True, others: dict[str, Any] | None = None) -> dict[str, Any]:
    """Describe a route's body for `needs(…)`: its JSON form by reference, other media types as given."""
    examples = {f"example {number}": {"value": value} for number, value in enumerate(_examples(form), start=1)}
    json = {"schema": {"$ref": f"#/components/schemas/{form.__name__}"}, "examples": examples}
    return {"requestBody": {"required": required, "content": {JSON: json, **(others or {})}}}


def _examples(form: type[BaseModel]) -> list[Any]:
    extra = form.model_config.get("json_schema_extra")
    found = extra.get("examples", []) if isinstance(extra, dict) else []
    return found if isinstance(found, list) else []


def _shown(request: Request) -> str:
    kind = media_type(request.headers.get("content-type"))
    return repr(kind[:80]) if kind else "none"


def unsupported(request: Request, *expected: str) -> Unsupported:
    """Give the error for a body of a type that the call does not take."""
    return Unsupported(
        f"Expected a body of type {', '.join(expected)}; got {_shown(request)}. Say which in the header `Content-Type`."
    )
