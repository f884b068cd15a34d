"""Learning: paused, resumed, asked for now; promotions held and freed."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool

from app.api.body import described, read_json
from app.api.deps import Parts, Wired
from app.api.key_cache import Scope
from app.api.openapi import problems
from app.api.paths import ModelPath
from app.api.schemas.models import ModelAnswer, ReasonRequest, RunRequest
from app.api.security import Called, needs
from app.api.shown import shown_model
from app.recipe import Recipe
from app.storage.tables import Model

router = APIRouter(prefix="/v1/models/{model}/learning", tags=["learning"])

_ADMIN = needs(Scope.ADMIN, **described(ReasonRequest, required=False))
_PROBLEMS = problems(400, 404, 413, 415)


@router.post("/pause", summary="Pause learning", response_model=ModelAnswer, responses=_PROBLEMS, **_ADMIN)
async def pause(request: Request, model: ModelPath, parts: Wired, caller: Called) -> ModelAnswer:
    """Start no more updates; samples wait in the queue."""
    return await _act(
        request, parts, lambda reason: parts.steering.set_paused(model, True, reason=reason, actor=caller.name)
    )


@router.post("/resume", summary="Resume learning", response_model=ModelAnswer, responses=_PROBLEMS, **_ADMIN)
async def resume(request: Request, model: ModelPath, parts: Wired, caller: Called) -> ModelAnswer:
    """Start updates again."""
    return await _act(
        request, parts, lambda reason: parts.steering.set_paused(model, False, reason=reason, actor=caller.name)
    )


@router.post(
    "/run",
    summary="Update now",
    response_model=ModelAnswer,
    responses=_PROBLEMS,
    **needs(Scope.ADMIN, **described(RunRequest, required=False)),
)
async def run(request: Request, model: ModelPath, parts: Wired, caller: Called) -> ModelAnswer:
    """Ask for an update now, whatever trigger or schedule say; a paused model learns this once."""
    asked = await read_json(request, RunRequest, empty=RunRequest())

    def act() -> ModelAnswer:
        _require_lane(Recipe.model_validate(parts.registry.model(model).recipe), asked.lane)
        row = parts.steering.request_run(model, reason=asked.reason, actor=caller.name, slow=asked.lane == "slow")
        return shown_model(parts, row)

    return await run_in_threadpool(act)


@router.post("/pin", summary="Hold promotions", response_model=ModelAnswer, responses=_PROBLEMS, **_ADMIN)
async def pin(request: Request, model: ModelPath, parts: Wired, caller: Called) -> ModelAnswer:
    """Keep the live version until unpinned."""
    return await _act(
        request, parts, lambda reason: parts.steering.set_pinned(model, True, reason=reason, actor=caller.name)
    )


@router.post("/unpin", summary="Free promotions", response_model=ModelAnswer, responses=_PROBLEMS, **_ADMIN)
async def unpin(request: Request, model: ModelPath, parts: Wired, caller: Called) -> ModelAnswer:
    """Let the gate promote again."""
    return await _act(
        request, parts, lambda reason: parts.steering.set_pinned(model, False, reason=reason, actor=caller.name)
    )


async def _act(request: Request, parts: Parts, action: Callable[[str], Model]) -> ModelAnswer:
    asked = await read_json(request, ReasonRequest, empty=ReasonRequest())
    return await run_in_threadpool(lambda: shown_model(parts, action(asked.reason)))


def _require_lane(recipe: Recipe, lane: str | None) -> None:
    """Refuse a lane in which the recipe does nothing: such an update would be waited for in vain."""
    if lane == "fast" and not recipe.closed_form:
        why = "the head is learned by gradient steps (recipe.head.kind 'softmax'), so there is no fast lane"
    elif lane == "slow" and not recipe.steps:
        why = "the head is solved and all else is frozen (recipe.trainable 'head'), so there is nothing to learn slowly"
    else:
        return
    message = f"{why}; leave `lane` out, or change the recipe"
    raise RequestValidationError([{"type": "value_error", "loc": ("body", "lane"), "msg": message}])
