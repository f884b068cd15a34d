"""Versions of a model, and the moves an admin makes between them."""

import time

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from app.api.body import described, read_json
from app.api.convergence import converged
from app.api.deps import Parts, Wired
from app.api.key_cache import Scope
from app.api.openapi import problems
from app.api.paths import Limit, ModelPath, NumberCursor, VersionPath
from app.api.schemas.versions import (
    MoveAnswer,
    PromoteRequest,
    RollbackRequest,
    ServerAnswer,
    VersionAnswer,
    VersionsAnswer,
)
from app.api.security import Called, needs
from app.api.shown import shown_versions
from app.storage.moves import Moved
from app.storage.servers import ServingState
from app.storage.settling import Fate

router = APIRouter(prefix="/v1/models/{model}", tags=["versions"])


@router.get(
    "/versions",
    summary="List versions",
    response_model=VersionsAnswer,
    responses=problems(404),
    **needs(Scope.PREDICT),
)
def versions(model: ModelPath, parts: Wired, cursor: NumberCursor = None, limit: Limit = 50) -> VersionsAnswer:
    """Show the history, newest first: what each version learned, how it was judged and why."""
    row = parts.registry.model(model)
    found = parts.registry.versions(row.id, cursor, limit + 1)
    page = found[:limit]
    return VersionsAnswer(
        versions=shown_versions(parts, row, page),
        next_cursor=str(page[-1].number) if len(found) > limit else None,
    )


@router.get(
    "/versions/{version}",
    summary="Show a version",
    response_model=VersionAnswer,
    responses=problems(404),
    **needs(Scope.PREDICT),
)
def version(model: ModelPath, version: VersionPath, parts: Wired) -> VersionAnswer:
    """Show one version."""
    row = parts.registry.model(model)
    return shown_versions(parts, row, [parts.registry.version(model, version)])[0]


@router.post(
    "/versions/{version}/promote",
    summary="Promote a version",
    response_model=MoveAnswer,
    responses=problems(400, 404, 409, 410, 413, 415),
    **needs(Scope.ADMIN, **described(PromoteRequest, required=False)),
)
async def promote(request: Request, model: ModelPath, version: VersionPath, parts: Wired, caller: Called) -> MoveAnswer:
    """Make a version live by hand, and wait at most 5 s for the servers to serve it."""
    asked = await read_json(request, PromoteRequest, empty=PromoteRequest())

    def act() -> MoveAnswer:
        started = time.monotonic()
        moved = parts.steering.promote(model, version, force=asked.force, reason=asked.reason, actor=caller.name)
        return _converged(parts, moved, started)

    return await run_in_threadpool(act)


@router.post(
    "/rollback",
    summary="Roll back",
    response_model=MoveAnswer,
    responses=problems(400, 404, 409, 410, 413, 415),
    **needs(Scope.ADMIN, **described(RollbackRequest, required=False)),
)
async def roll_back(request: Request, model: ModelPath, parts: Wired, caller: Called) -> MoveAnswer:
    """Go back to a version that was live, its learner's state and the samples' fates with it; no gate asks.

    Waits at most 5 s for the servers; those that did not show the move by then are `stragglers`.
    """
    asked = await read_json(request, RollbackRequest, empty=RollbackRequest())

    def act() -> MoveAnswer:
        started = time.monotonic()
        moved = parts.steering.roll_back(
            model,
            to=asked.to,
            samples=Fate(asked.samples),
            pin=asked.pin,
            reason=asked.reason,
            actor=caller.name,
        )
        return _converged(parts, moved, started)

    return await run_in_threadpool(act)


def _converged(parts: Parts, moved: Moved, started: float) -> MoveAnswer:
    servers = converged(parts, moved.model.id, moved.epoch)
    return MoveAnswer(
        live=moved.live.number,
        previous=moved.previous.number,
        servers=[_server(state) for state in servers.there],
        stragglers=[_server(state) for state in servers.behind],
        samples=moved.samples,
        took_ms=round((time.monotonic() - started) * 1000),
    )


def _server(state: ServingState) -> ServerAnswer:
    return ServerAnswer(server=state.server_id, host=state.host, pid=state.pid, epoch=state.epoch, error=state.error)
