"""Families: which models share one backbone, and asking all of them at once. A model joins when it is created."""

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic_core import to_json

from app.api.asked import CLIENT_GONE, FILES, asked, contents_of, disconnected, prediction_of, records_of
from app.api.body import described
from app.api.deps import Parts, Wired
from app.api.key_cache import Scope
from app.api.openapi import problems
from app.api.paths import FamilyPath
from app.api.schemas.families import (
    FamiliesAnswer,
    FamilyAnswer,
    FamilyMembersAnswer,
    FamilyPredictAnswer,
)
from app.api.schemas.predict import PredictRequest
from app.api.security import needs
from app.api.shown import shown_model
from app.errors import NoLiveModel, PerennialError
from app.serving.family_predictor import FamilyPredictor, family_queue
from app.serving.predictor import Predictor

router = APIRouter(prefix="/v1/families", tags=["families"])


@router.get("", summary="List families", response_model=FamiliesAnswer, responses=problems(), **needs(Scope.PREDICT))
def families(parts: Wired) -> FamiliesAnswer:
    """Show every family and who belongs to it."""
    return FamiliesAnswer(
        families=[
            FamilyAnswer(name=family.name, members=[one.name for one in members], created_at=family.created_at)
            for family, members in parts.registry.families()
        ]
    )


@router.get(
    "/{family}",
    summary="Show a family",
    response_model=FamilyMembersAnswer,
    responses=problems(404),
    **needs(Scope.PREDICT),
)
def show(family: FamilyPath, parts: Wired) -> FamilyMembersAnswer:
    """Show the models of a family, each as it stands now."""
    row, members = parts.registry.family(family)
    shown = [shown_model(parts, one) for one in members]
    return FamilyMembersAnswer(name=row.name, created_at=row.created_at, members=shown)


@router.post(
    "/{family}/predict",
    summary="Ask a family",
    response_model=FamilyPredictAnswer,
    responses=problems(400, 404, 413, 415, 429, 503, 504),
    **needs(Scope.PREDICT, **described(PredictRequest, others=FILES)),
)
async def predict(request: Request, family: FamilyPath, parts: Wired) -> Response:
    """Answer inputs in their order by the live versions of all members; what they share is computed once.

    The body is as for one model: a picture (`image/*`), pictures as `file` parts of a form, or JSON.
    """
    started = time.perf_counter()
    known = "unknown"
    try:
        parts.batcher.require_room(family_queue(family))  # before a large body is read
        question = await asked(request)
        row, models = await parts.aside.call(lambda: parts.registry.family(family))
        known = family_queue(row.name)
        predictor = FamilyPredictor(row.name, [_live(parts, model.name) for model in models])
        contents = contents_of(question, predictor.members[0].spec)
        answers = await parts.batcher.answer(predictor, contents, question.top_k, lambda: disconnected(request))
    except PerennialError as error:
        parts.metrics.rejected(known, type(error).__name__)
        raise
    if answers is None:
        return Response(status_code=CLIENT_GONE)
    predictions: list[dict[str, Any]] = [{} for _ in answers]
    for member, column in zip(predictor.members, zip(*answers, strict=True), strict=True):
        records = records_of(member, contents, column)
        parts.writer.write(records)
        parts.metrics.answered(member.model, member.version, len(records), time.perf_counter() - started)
        for of_input, record, answer in zip(predictions, records, column, strict=True):
            of_input[member.model] = prediction_of(record.id, answer)
    body = to_json(
        {
            "family": row.name,
            "versions": {member.model: member.version for member in predictor.members},
            "predictions": predictions,
        }
    )
    return Response(body, media_type="application/json")


def _live(parts: Parts, model: str) -> Predictor:
    live = parts.live_models.get(model)
    if live is None:
        raise NoLiveModel(model)
    return live.predictor()
