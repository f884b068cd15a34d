"""What is wrong in a request, said so that its sender can mend it: what was expected, and what kind of thing came.

What came is not sent back: it may be somebody's secret, and an answer may end up in a log. Called wherever a
form, a path or a query is checked. Knows pydantic's codes and the forms; nothing of statuses.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from app.api.paths import TEXT, UUID
from app.api.schemas.wire import PRINTABLE, WRITTEN
from app.recipe import MODEL_NAME

_PATTERNS = {
    MODEL_NAME: "a name of small letters, digits, - and _, at most 63, that begins with a letter or digit",
    UUID: "an id as this API gives it, such as 019aa5e2-7c1e-7b5a-9d1c-0a1b2c3d4e5f",
    PRINTABLE: "text to read, without control characters",
    WRITTEN: "text without control characters but line breaks and tabs",
    TEXT: "text without control characters",
}

Form = type[BaseModel]


def complaint(error: Mapping[str, Any], form: Form | None = None) -> str:
    """Put one of pydantic's errors, with its `ctx` and where possible its `input`, into words.

    `form` is what the request was read into: with it, the fields that would be right can be named.
    """
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "it is missing, and must be given"
        case "extra_forbidden":
            return _no_such_field(error["loc"], form)
        case "string_pattern_mismatch" if context.get("pattern") in _PATTERNS:
            words = f"expected {_PATTERNS[context['pattern']]}"
        case "union_tag_invalid":
            return f"expected `kind` to be one of {context['expected_tags']}; got another"
        case "union_tag_not_found":
            kinds = ", ".join(repr(_kind(one)) for one in _where(error["loc"], form)[1])
            return f"expected a `kind`{f', one of {kinds}' if kinds else ''}; got none"
        case "value_error":
            return str(error["msg"]).removeprefix("Value error, ")
        case _:
            words = str(error["msg"]).replace("Input should be greater", "Input should be a number greater")
            words = words.replace("Input should be less", "Input should be a number less")
            words = words.replace("Input should be", "expected", 1)
    return f"{words}; got {_kind_of(error['input'])}" if "input" in error else words


def place(loc: Sequence[int | str], form: Form | None = None) -> tuple[str, ...]:
    """Give the place as the sender wrote it, without the tags that pydantic adds where it chose among forms."""
    return _where(loc, form)[0]


def _no_such_field(loc: Sequence[int | str], form: Form | None) -> str:
    fields = list(dict.fromkeys(name for one in _where(loc[:-1], form)[1] for name in one.model_fields))
    if not fields:
        return "there is no such field"
    near = difflib.get_close_matches(str(loc[-1]), fields, n=1)
    asked = f"; did you mean {near[0]!r}?" if near else ""
    return f"there is no such field; expected {', '.join(fields)}{asked}"


def _where(loc: Sequence[int | str], form: Form | None) -> tuple[tuple[str, ...], list[Form]]:
    """Follow a place down the forms; give it without tags, and the forms that may stand there."""
    forms = [] if form is None else [form]
    written: list[str] = []
    for part in loc:
        if isinstance(part, int):
            written.append(str(part))
            continue
        tagged = [one for one in forms if _kind(one) == part]
        if tagged:
            forms = tagged
            continue
        written.append(part)
        forms = [
            found for one in forms if part in one.model_fields for found in _forms(one.model_fields[part].annotation)
        ]
    return tuple(written), forms


def _forms(annotation: Any) -> list[Form]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for one in get_args(annotation) for found in _forms(one)]


def _kind(form: Form) -> object:
    field = form.model_fields.get("kind")
    return None if field is None else field.default


def _kind_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return f"{value:.6g}"
        case str():
            return "a text" if value else "an empty text"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
    return "something else"
