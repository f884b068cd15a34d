"""POST predict: ask the live version, or one by number, about one input or many; and what was answered before."""

import time

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from app.api.asked import CLIENT_GONE, FILES, asked, contents_of, disconnected, records_of, top_of
from app.api.body import described
from app.api.deps import Parts, Wired
from app.api.key_cache import Scope
from app.api.openapi import problems
from app.api.paths import AskedVersion, ModelPath, PredictionPath
from app.api.schemas.predict import (
    LabelScore,
    PredictAnswer,
    PredictionAnswer,
    PredictionRecordAnswer,
    PredictRequest,
)
from app.api.security import needs
from app.errors import NoLiveModel, PerennialError
from app.serving.inference_pool import while_connected
from app.serving.predictor import Predictor

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
    started = time.perf_counter()
    try:
        parts.pool.require_room()  # before a large body is read
        question = await asked(request)  # outside: a slow sender holds no place
        with parts.pool.admitted():
            predictor = await _predictor(parts, model, version)
            contents = contents_of(question, predictor.spec)
            answering = parts.pool.answer(predictor, contents, question.top_k)
            answers = await while_connected(answering, disconnected(request))
    except PerennialError as error:
        known = model if parts.live_models.get(model) is not None else "unknown"
        parts.metrics.prediction_errors.labels(known, type(error).__name__).inc()
        raise
    if answers is None:
        return Response(status_code=CLIENT_GONE)
    records = records_of(predictor, contents, answers)
    parts.writer.write(records)
    parts.metrics.answered(model, predictor.version, len(records), time.perf_counter() - started)
    body = PredictAnswer(
        model=predictor.model,
        version=predictor.version,
        predictions=[
            PredictionAnswer(
                prediction_id=record.id, label=answer.label, score=answer.score, top=top_of(answer), ask_for_label=False
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
