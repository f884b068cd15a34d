"""POST predict: ask the live version, or one by number, about one input or many; and what was answered before."""

import time
from collections.abc import Awaitable, Callable, Sequence

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from app.api.answering import predictor_of
from app.api.asked import CLIENT_GONE, FILES, Asked, asked, contents_of, disconnected, prediction_of, records_of
from app.api.body import described
from app.api.deps import Parts, Wired
from app.api.key_cache import Scope
from app.api.openapi import problems
from app.api.paths import AskedVersion, ModelPath, PredictionPath
from app.api.schemas.predict import (
    LabelScore,
    PredictAnswer,
    PredictionRecordAnswer,
    PredictRequest,
)
from app.api.security import needs
from app.errors import PerennialError
from app.serving.predictor import Answer, Predictor


class Answered(Response):
    """A JSON text made by a version; its headers are written as they go out, since one is made for each request."""

    def __init__(self, body: bytes, version: int) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [
            (b"content-length", str(len(body)).encode()),
            (b"content-type", b"application/json"),
            (b"x-model-version", str(version).encode()),
        ]


router = APIRouter(prefix="/v1/models/{model}", tags=["predict"])


@router.post(
    "/predict",
    summary="Predict",
    response_model=PredictAnswer,
    responses=problems(400, 404, 410, 413, 415, 429, 504),
    **needs(Scope.PREDICT, **described(PredictRequest, others=FILES)),
)
async def predict(request: Request, model: ModelPath, parts: Wired, version: AskedVersion = None) -> Response:
    """Answer inputs in their order, all by one version, which the answer and `X-Model-Version` name.

    The body is one picture (`image/*`), pictures as `file` parts of a form, or JSON with inputs of any kind.
    """
    return await answer(parts, model, lambda: asked(request), lambda: disconnected(request), version)


async def answer(
    parts: Parts,
    model: str,
    asking: Callable[[], Awaitable[Asked]],
    leaving: Callable[[], Awaitable[object]],
    version: int | None = None,
) -> Response:
    """Answer a predict request whose caller may ask; both ways in end here.

    `asking` reads what is asked, `leaving` ends when the client has gone.
    """
    started = time.perf_counter()
    try:
        parts.batcher.require_room(model)  # before a large body is read
        question = await asking()
        predictor = await predictor_of(parts, model, version)
        contents = contents_of(question, predictor.spec)
        answers = await parts.batcher.answer(predictor, contents, question.top_k, leaving)
    except PerennialError as error:
        _count_rejected(parts, model, error)
        raise
    if answers is None:
        return Response(status_code=CLIENT_GONE)
    return _answered(parts, predictor, contents, answers, started)


def answer_in_turn(
    parts: Parts, model: str, question: Asked, ended: Callable[[Callable[[], Response]], None], asker: int
) -> bool:
    """Have the live version answer within this turn of the event loop, if its network is over in a blink; say so.

    `ended` is given what makes the answer, or raises what went wrong, as `answer` does. So does this at once. `asker`
    stands for the connection.
    """
    live = parts.live_models.get(model)
    if live is None or live.current is None or not live.current.predictor.cheap:
        return False
    predictor = live.predictor()
    started = time.perf_counter()

    def heard(answers: list[Answer] | None, error: Exception | None) -> None:
        ended(lambda: made(answers or [], error))

    def made(answers: list[Answer], error: Exception | None) -> Response:
        if error is not None:
            if isinstance(error, PerennialError):
                _count_rejected(parts, model, error)
            raise error
        return _answered(parts, predictor, contents, answers, started)

    try:
        contents = contents_of(question, predictor.spec)
        return parts.batcher.answer_in_turn(predictor, contents, question.top_k, heard, asker)
    except PerennialError as error:
        _count_rejected(parts, model, error)
        raise


def _count_rejected(parts: Parts, model: str, error: PerennialError) -> None:
    known = model if parts.live_models.get(model) is not None else "unknown"
    parts.metrics.rejected(known, type(error).__name__)


def _answered(
    parts: Parts, predictor: Predictor, contents: Sequence[bytes], answers: Sequence[Answer], started: float
) -> Response:
    """Write answers down, and out."""
    answered = time.perf_counter()
    records = records_of(predictor, contents, answers)
    parts.writer.write(records)
    body = to_json(
        {
            "model": predictor.model,
            "version": predictor.version,
            "predictions": [prediction_of(record.id, one) for record, one in zip(records, answers, strict=True)],
        }
    )
    ended = time.perf_counter()
    parts.metrics.encoded(predictor.model, ended - answered)
    parts.metrics.answered(predictor.model, predictor.version, len(records), ended - started)
    return Answered(body, predictor.version)


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
    if waiting is not None and waiting.model_id == row.id:
        record = waiting
    else:
        record = parts.predictions.get(row.id, prediction_id)
    response.headers["X-Model-Version"] = str(record.version)
    return PredictionRecordAnswer(
        prediction_id=record.id,
        model=model,
        version=record.version,
        label=record.label,
        score=record.score,
        top=[LabelScore(label=label, score=score) for label, score in record.top],
        created_at=record.created_at,
    )
