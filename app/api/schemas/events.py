"""The form of the audit log."""

from datetime import datetime
from typing import Any

from pydantic import ConfigDict

from app.api.schemas.wire import Sent, example

_EVENT = {
    "id": 41,
    "model": "iris",
    "kind": "version.rolled_back",
    "actor": "anna",
    "reason": "complaints",
    "detail": {"from": 17, "to": 16},
    "at": "2026-01-02T12:03:00Z",
}


class EventAnswer(Sent):
    """Who moved what, when and why."""

    model_config = ConfigDict(json_schema_extra=example(_EVENT))

    id: int
    model: str | None
    kind: str
    actor: str
    reason: str
    detail: dict[str, Any]
    at: datetime


class EventsAnswer(Sent):
    model_config = ConfigDict(json_schema_extra=example({"events": [_EVENT], "next_cursor": None}))

    events: list[EventAnswer]
    next_cursor: str | None
