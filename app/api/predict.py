"""POST predict: ask the live version, or one by number, about one input or many; and what was answered before."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from uuid_utils import uuid7

from app.api.body import described, read_json, unsupported
from app.api.deps import Parts, Wired
from app.api.key_cache import Scope
from app.api.limits import media_type
from app.api.openapi import problems
from app.api.paths import AskedVersion, ModelPath, PredictionPath
from app.api.payloads import Payload, file_payloads, payload, read_form, require_kind, text_fields
from app.api.schemas.predict import (
    LabelScore,
    PredictAnswer,
    PredictionAnswer,
    PredictionRecordAnswer,
    PredictRequest,
)
from app.api.security import needs
from app.errors import InvalidItem, NoLiveModel, PerennialError
from app.serving.inference_pool import while_connected
from app.serving.predictor import Answer, Predictor
from app.storage.predictions import PredictionRecord

router = APIRouter(prefix="/v1/models/{model}", tags=["predict"])

_FILES: dict[str, Any] = {
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
_CLIENT_GONE = 499


@dataclass(frozen=True)
class Asked:
    """What a request wants answered, in the order of the answer."""

    payloads: Sequence[Payload]
    top_k: int = 5


@router.post(
    "/predict",
    summary="Predict",
    response_model=PredictAnswer,
    responses=problems(400, 404, 410, 413, 415, 429, 504),
    **needs(Scope.PREDICT, **described(PredictRequest, others=_FILES)),
)
async def predict(request: Request, model: ModelPath, parts: Wired, version: AskedVersion = None) -> Response:
    """Answer inputs in their order, all by one version, which the answer and `X-Model-Version` name.

    The body is one picture (`image/*`), pictures as `file` parts of a form, or JSON with inputs of any kind.
    """
    started = time.perf_counter()
    try:
        parts.pool.require_room()  # before a large body is read
        asked = await _asked(request)  # outside: a slow sender holds no place
        with parts.pool.admitted():
            predictor = await _predictor(parts, model, version)
            contents = _contents(asked, predictor)
            answers = await while_connected(parts.pool.answer(predictor, contents, asked.top_k), _disconnected(request))
    except PerennialError as error:
        known = model if parts.live_models.get(model) is not None else "unknown"
        parts.metrics.prediction_errors.labels(known, type(error).__name__).inc()
        raise
    if answers is None:
        return Response(status_code=_CLIENT_GONE)
    records = _records(predictor, contents, answers)
    parts.writer.write(records)
    parts.metrics.answered(model, predictor.version, len(records), time.perf_counter() - started)
    body = PredictAnswer(
        model=predictor.model,
        version=predictor.version,
        predictions=[
            PredictionAnswer(
                prediction_id=record.id, label=answer.label, score=answer.score, top=_top(answer), ask_for_label=False
            )
            for record, answer in zip(records, answers, strict=True)
        ],
    )
    return Response(
        body.model_dump_json(),
        media_type="application/json",
        headers={"X-Model-Version": str(predictor.version)},
    )


@router.get(
    "/predictions/{prediction_id}",
    summary="What was predicted",
    response_model=PredictionRecordAnswer,
    responses=problems(404, 410),
    **needs(Scope.PREDICT),
)
def prediction(
    model: ModelPath, prediction_id: PredictionPath, parts: Wired, response: Response
) -> PredictionRecordAnswer:
    """Tell what was answered to an input, and by which version; 410 when it is older than what is kept."""
    row = parts.registry.model(model)
    waiting = parts.writer.find(prediction_id)
    found = waiting if waiting is not None and waiting.model_id == row.id else None
    record = found or parts.predictions.get(row.id, prediction_id)
    response.headers["X-Model-Version"] = str(record.version)
    return PredictionRecordAnswer(
        prediction_id=record.id,
        model=model,
        version=record.version,
        label=record.label,
        score=record.score,
        top=[LabelScore(label=one["label"], score=one["score"]) for one in record.top],
        created_at=record.created_at,
    )


async def _asked(request: Request) -> Asked:
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
        return await run_in_threadpool(_from_json, body)
    raise unsupported(request, "application/json", "image/*", "multipart/form-data")


def _from_json(body: PredictRequest) -> Asked:
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


async def _predictor(parts: Parts, model: str, version: int | None) -> Predictor:
    live = parts.live_models.get(model)
    if version is not None:
        warm = None if live is None else live.warm_number(version)
        if warm is not None:
            return warm
        return await parts.pool.call(lambda: parts.pinned_versions.get(model, version))
    if live is None:
        await run_in_threadpool(parts.registry.model, model)  # UnknownModel, or it is only not here yet
        raise NoLiveModel(model)
    return live.predictor()


def _contents(asked: Asked, predictor: Predictor) -> list[bytes]:
    contents = []
    for index, given in enumerate(asked.payloads):
        try:
            contents.append(require_kind(given, predictor.spec.input.kind))
        except InvalidItem as error:
            raise InvalidItem(error.code, f"inputs[{index}]: {error.detail}") from error
    return contents


def _records(predictor: Predictor, contents: Sequence[bytes], answers: Sequence[Answer]) -> list[PredictionRecord]:
    at = datetime.now(UTC)
    return [
        PredictionRecord(
            id=str(uuid7()),
            model_id=predictor.model_id,
            version=predictor.version,
            label=answer.label,
            score=answer.score,
            top=[{"label": one.label, "score": one.score} for one in answer.top],
            content=content,
            created_at=at,
        )
        for content, answer in zip(contents, answers, strict=True)
    ]


def _top(answer: Answer) -> list[LabelScore]:
    return [LabelScore(label=one.label, score=one.score) for one in answer.top]


async def _disconnected(request: Request) -> None:
    """Return when the client has gone away; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
