"""POST infer: ask the live version, or one by number, in the Open Inference Protocol."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from app.api.answering import predictor_of
from app.api.asked import CLIENT_GONE, disconnected, records_of
from app.api.body import SMALL_BYTES, described
from app.api.deps import Parts, Wired
from app.api.key_cache import Scope
from app.api.openapi import errors
from app.api.paths import ModelPath, VersionPath
from app.api.security import needs
from app.api.v2.inputs import contents_of
from app.api.v2.message import JSON_LENGTH, joined, read_bytes, split
from app.api.v2.outputs import filled, labels_needed, wanted_by
from app.api.v2.schemas import InferAnswer, InferRequest
from app.errors import InvalidItem, PerennialError
from app.serving.predictor import Answer, Predictor

router = APIRouter(prefix="/v2/models/{model}", tags=["open inference protocol"])

T = TypeVar("T")

KEPT_LABELS = 5  # of an answer's best, in the log
FEW_VALUES = 4096  # probabilities that are put into an answer on the event loop; more in a thread

_DESCRIBED: dict[str, Any] = {
    "response_model": InferAnswer,
    "responses": errors(400, 404, 410, 413, 415, 429, 504),
    **needs(
        Scope.PREDICT,
        **described(
            InferRequest,
            others={
                "application/octet-stream": {
                    "schema": {"type": "string", "contentMediaType": "application/octet-stream"}
                }
            },
        ),
    ),
}


@router.post("/infer", summary="Infer", **_DESCRIBED)
async def infer(request: Request, model: ModelPath, parts: Wired) -> Response:
    """Answer the rows of a tensor in their order, all by the live version, which the answer names.

    The body is JSON, or JSON and after it the bytes of the tensor; then `Inference-Header-Content-Length` says where
    they begin.
    """
    return await _infer(request, parts, model, None)


@router.post("/versions/{version}/infer", summary="Infer by a version", **_DESCRIBED)
async def infer_by(request: Request, model: ModelPath, version: VersionPath, parts: Wired) -> Response:
    """Answer by a version that need not be live; it is loaded if it is not yet."""
    return await _infer(request, parts, model, version)


async def _infer(request: Request, parts: Parts, model: str, version: int | None) -> Response:
    started = time.perf_counter()
    try:
        parts.batcher.require_room(model)  # before a large body is read
        body = await read_bytes(request)
        large = len(body) > SMALL_BYTES
        asked, sent = await _beside(large, lambda: split(body, request.headers.get(JSON_LENGTH)))
        wanted = wanted_by(asked)
        predictor = await predictor_of(parts, model, version)
        pack = large or sent[0].tensor.datatype == "UINT8"
        contents = await _beside(pack, lambda: contents_of(sent, predictor.spec))
        top_k = max(KEPT_LABELS, labels_needed(wanted, len(predictor.labels)))
        answers = await _answers(request, parts, predictor, contents, top_k)
    except PerennialError as error:
        known = model if parts.live_models.get(model) is not None else "unknown"
        parts.metrics.rejected(known, type(error).__name__)
        raise
    if answers is None:
        return Response(status_code=CLIENT_GONE)
    records = records_of(predictor, contents, [predictor.trimmed(one, KEPT_LABELS) for one in answers])
    parts.writer.write(records)
    parts.metrics.answered(model, predictor.version, len(records), time.perf_counter() - started)
    many = sum(len(one.top) for one in answers) > FEW_VALUES
    ids = [record.id for record in records]
    return await _beside(
        many,
        lambda: joined(predictor.model, predictor.version, asked.id, filled(wanted, predictor.labels, answers, ids)),
    )


async def _beside(large: bool, function: Callable[[], T]) -> T:
    """Run what takes long beside the event loop, and on it what does not."""
    return await run_in_threadpool(function) if large else function()


async def _answers(
    request: Request, parts: Parts, predictor: Predictor, contents: Sequence[bytes], top_k: int
) -> list[Answer] | None:
    try:
        return await parts.batcher.answer(predictor, contents, top_k, lambda: disconnected(request))
    except InvalidItem as error:  # it speaks of `inputs[3]`; here that is a row of the one tensor
        named = predictor.spec.input.kind + error.detail.removeprefix("inputs")
        raise InvalidItem(error.code, named if error.detail.startswith("inputs[") else error.detail) from error
