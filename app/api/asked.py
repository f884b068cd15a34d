"""What predict requests ask, in any of the forms a body may have, and how they are answered and recorded.

Shared by the routes that predict: of one model and of a family.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from uuid_utils import uuid7

from app.api.body import SMALL_BYTES, read_json, unsupported
from app.api.limits import media_type
from app.api.payloads import Payload, file_payloads, payload, read_form, require_kind, text_fields
from app.api.schemas.predict import PredictRequest
from app.errors import InvalidItem
from app.networks.spec import NetworkSpec
from app.serving.predictor import Answer, Predictor
from app.storage.predictions import PredictionRecord

FILES: dict[str, Any] = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["file"],
            "properties": {
                "file": {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}},
                "top_k": {"type": "integer", "minimum": 1, "maximum": 100, "default": 5},
            },
        }
    },
    "image/*": {"schema": {"type": "string", "contentMediaType": "image/*"}},
}
CLIENT_GONE = 499


@dataclass(frozen=True)
class Asked:
    """What a request wants answered, in the order of the answer."""

    payloads: Sequence[Payload]
    top_k: int = 5


async def asked(request: Request) -> Asked:
    """Read the body: one picture, a form with files, or JSON."""
    kind = media_type(request.headers.get("content-type"))
    if kind.startswith("image/"):
        return Asked([Payload("image", await request.body())])
    if kind == "multipart/form-data":
        async with read_form(request) as form:
            fields = text_fields(form, "top_k")
            payloads = await file_payloads(form)
        if not payloads:
            raise InvalidItem("no_file", "Expected at least one part named `file`; got none.")
        return Asked(payloads, _top_k(fields["top_k"]))
    if kind == "application/json":
        body = await read_json(request, PredictRequest)
        small = len(await request.body()) <= SMALL_BYTES
        return from_json(body) if small else await run_in_threadpool(from_json, body)
    raise unsupported(request, "application/json", "image/*", "multipart/form-data")


def from_json(body: PredictRequest) -> Asked:
    """Give what a JSON body asks; InvalidItem for an input that is none."""
    payloads = []
    for index, one in enumerate(body.inputs):
        try:
            given = payload(one.image, one.text, one.features)
        except InvalidItem as error:
            raise InvalidItem(error.code, f"inputs[{index}]: {error.detail}") from error
        if given is None:
            raise InvalidItem("no_input", f"inputs[{index}]: expected one of image, text, features; got none.")
        payloads.append(given)
    return Asked(payloads, body.top_k)


def _top_k(values: list[str]) -> int:
    if not values:
        return 5
    if len(values) == 1 and values[0].isascii() and values[0].isdigit() and 1 <= int(values[0][:4]) <= 100:
        return int(values[0][:4])
    raise InvalidItem("top_k", "top_k: expected one number from 1 to 100.")


def contents_of(question: Asked, spec: NetworkSpec) -> list[bytes]:
    """Give the payloads of what was asked; InvalidItem for one that is not of the spec's kind."""
    contents = []
    for index, given in enumerate(question.payloads):
        try:
            contents.append(require_kind(given, spec.input.kind))
        except InvalidItem as error:
            raise InvalidItem(error.code, f"inputs[{index}]: {error.detail}") from error
    return contents


def records_of(predictor: Predictor, contents: Sequence[bytes], answers: Sequence[Answer]) -> list[PredictionRecord]:
    """Write down what was answered, each under an id of its own."""
    at = datetime.now(UTC)
    return [
        PredictionRecord(
            id=str(uuid7()),
            model_id=predictor.model_id,
            version=predictor.version,
            label=answer.label,
            score=answer.score,
            top=answer.top,
            content=content,
            created_at=at,
        )
        for content, answer in zip(contents, answers, strict=True)
    ]


def prediction_of(prediction_id: str, answer: Answer) -> dict[str, Any]:
    """Show an answer in the form of `PredictionAnswer`, as plain data: built for each request, it is not checked."""
    return {
        "prediction_id": prediction_id,
        "label": answer.label,
        "score": answer.score,
        "top": [{"label": label, "score": score} for label, score in answer.top],
        "ask_for_label": False,
    }


async def disconnected(request: Request) -> None:
    """Return when the client has gone away; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
