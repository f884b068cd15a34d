"""Learning: paused, resumed, asked for now; promotions held and freed."""

from collections.abc import Callable

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from app.api.body import described, read_json
from app.api.deps import Parts, Wired
from app.api.key_cache import Scope
from app.api.openapi import problems
from app.api.paths import ModelPath
from app.api.schemas.models import ModelAnswer, ReasonRequest
from app.api.security import Called, needs
from app.api.shown import shown_model
from app.storage.tables import Model

router = APIRouter(prefix="/v1/models/{model}/learning", tags=["learning"])

_ADMIN = needs(Scope.ADMIN, **described(ReasonRequest, required=False))
_PROBLEMS = problems(400, 404, 413, 415)


@router.post("/pause", summary="Pause learning", response_model=ModelAnswer, responses=_PROBLEMS, **_ADMIN)
async def pause(request: Request, model: ModelPath, parts: Wired, caller: Called) -> ModelAnswer:
    """Start no more updates; samples wait in the queue."""
    return await _act(
        request, parts, lambda reason: parts.registry.set_paused(model, True, reason=reason, actor=caller.name)
    )


@router.post("/resume", summary="Resume learning", response_model=ModelAnswer, responses=_PROBLEMS, **_ADMIN)
async def resume(request: Request, model: ModelPath, parts: Wired, caller: Called) -> ModelAnswer:
    """Start updates again."""
    return await _act(
        request, parts, lambda reason: parts.registry.set_paused(model, False, reason=reason, actor=caller.name)
    )


@router.post("/run", summary="Update now", response_model=ModelAnswer, responses=_PROBLEMS, **_ADMIN)
async def run(request: Request, model: ModelPath, parts: Wired, caller: Called) -> ModelAnswer:
    """Ask for an update now, whatever the trigger says; a paused model learns this once."""
    return await _act(
        request, parts, lambda reason: parts.registry.request_run(model, reason=reason, actor=caller.name)
    )


@router.post("/pin", summary="Hold promotions", response_model=ModelAnswer, responses=_PROBLEMS, **_ADMIN)
async def pin(request: Request, model: ModelPath, parts: Wired, caller: Called) -> ModelAnswer:
    """Keep the live version until unpinned."""
    return await _act(
        request, parts, lambda reason: parts.registry.set_pinned(model, True, reason=reason, actor=caller.name)
    )


@router.post("/unpin", summary="Free promotions", response_model=ModelAnswer, responses=_PROBLEMS, **_ADMIN)
async def unpin(request: Request, model: ModelPath, parts: Wired, caller: Called) -> ModelAnswer:
    """Let the gate promote again."""
    return await _act(
        request, parts, lambda reason: parts.registry.set_pinned(model, False, reason=reason, actor=caller.name)
    )


async def _act(request: Request, parts: Parts, action: Callable[[str], Model]) -> ModelAnswer:
    asked = await read_json(request, ReasonRequest, empty=ReasonRequest())
    return await run_in_threadpool(lambda: shown_model(parts, action(asked.reason)))
