"""The audit log: who moved what, when and why."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.deps import Wired
from app.api.key_cache import Scope
from app.api.openapi import problems
from app.api.paths import Limit, NumberCursor
from app.api.schemas.events import EventAnswer, EventsAnswer
from app.api.security import needs

router = APIRouter(prefix="/v1/events", tags=["events"])


@router.get("", summary="List events", response_model=EventsAnswer, responses=problems(404), **needs(Scope.ADMIN))
def events(
    parts: Wired,
    model: Annotated[
        str | None, Query(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Of this model only.")
    ] = None,
    cursor: NumberCursor = None,
    limit: Limit = 50,
) -> EventsAnswer:
    """Show what was done, newest first."""
    names = {row.id: row.name for row in parts.registry.models()}
    wanted = None if model is None else parts.registry.model(model).id
    found = parts.events.list(wanted, cursor, limit + 1)
    page = found[:limit]
    return EventsAnswer(
        events=[
            EventAnswer(
                id=event.id,
                model=None if event.model_id is None else names.get(event.model_id),
                kind=event.kind,
                actor=event.actor,
                reason=event.reason,
                detail=event.detail,
                at=event.at,
            )
            for event in page
        ],
        next_cursor=str(page[-1].id) if len(found) > limit else None,
    )
