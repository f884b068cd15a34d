"""What a request brings as input, in any of its forms, as payload bytes: the form in which everything is kept.

The predict and the samples routes read with it. Knows nothing of what the payload will be used for.
"""

import binascii
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from app.api.error_handlers import Malformed
from app.api.limits import FILES, ITEM_BYTES, ITEMS
from app.errors import InvalidItem, TooLarge
from app.networks.features import features_content

KINDS = ("image", "text", "features")


@dataclass(frozen=True)
class Payload:
    """One input: of which kind it says it is, and its bytes."""

    kind: str
    content: bytes


def payload(image: str | None, text: str | None, features: list[float] | None) -> Payload | None:
    """Give the one input that is set, None if none is; InvalidItem if several are or it cannot be read."""
    given = [kind for kind, value in zip(KINDS, (image, text, features), strict=True) if value is not None]
    if not given:
        return None
    if len(given) > 1:
        raise InvalidItem("several_inputs", f"Expected one of {', '.join(KINDS)}; got {' and '.join(given)}.")
    if image is not None:
        return Payload("image", _from_base64(image))
    if features is not None:
        return Payload("features", features_content(features))
    return Payload("text", (text or "").encode())


def require_kind(given: Payload, expected: str) -> bytes:
    """Give the content if it is of the kind that the model takes; InvalidItem otherwise."""
    if given.kind != expected:
        raise InvalidItem("wrong_kind", f"Expected {expected!r}, which is what this model takes; got {given.kind!r}.")
    if len(given.content) > ITEM_BYTES:
        raise InvalidItem("too_large", "Expected at most 10 MiB an item. Send it scaled down.")
    return given.content


def _from_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # binascii.Error, and text that is not ASCII
        raise InvalidItem("not_base64", "Expected the file's bytes in base64, without a data: prefix.") from error


@asynccontextmanager
async def read_form(request: Request) -> AsyncIterator[FormData]:
    """Read a multipart body, at most 64 files and small fields beside them, and let go of it after the block."""
    form = await _form(request)
    try:
        yield form
    finally:
        await form.close()


async def _form(request: Request) -> FormData:
    try:
        return await request.form(max_files=FILES, max_fields=4 * ITEMS, max_part_size=64 << 10)
    except HTTPException as error:
        if error.detail.startswith(("Too many", "Part exceeded")):
            raise TooLarge("The form", f"{FILES} files and fields of 64 KiB") from None
        raise Malformed(f"The form cannot be read: {error.detail}") from None


async def file_payloads(form: FormData) -> list[Payload]:
    """Give the pictures of the parts named `file`, in order."""
    payloads = []
    for index, part in enumerate(form.getlist("file")):
        if not isinstance(part, UploadFile):
            raise InvalidItem("no_file", f"file[{index}]: expected a file with a file name, got a plain field.")
        if (part.size or 0) > ITEM_BYTES:
            raise TooLarge(f"file[{index}]", "10 MiB an item")
        payloads.append(Payload("image", await part.read()))
    return payloads


def text_fields(form: FormData, *names: str) -> dict[str, list[str]]:
    """Give the plain fields of those names; InvalidItem for any other part."""
    unknown = sorted({key for key in form if key not in ("file", *names)})
    if unknown:
        allowed = ", ".join(("file", *names))
        raise InvalidItem("unknown_field", f"Expected parts named {allowed}; got {unknown[0][:80]!r}.")
    found: dict[str, list[str]] = {}
    for name in names:
        values = form.getlist(name)
        if not all(isinstance(value, str) for value in values):
            raise InvalidItem("not_text", f"{name}: expected a plain field, got a file.")
        found[name] = [value for value in values if isinstance(value, str)]
    return found
