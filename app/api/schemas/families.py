"""The forms of families: models that share one backbone."""

from datetime import datetime

from pydantic import ConfigDict, Field

from app.api.schemas.models import ModelAnswer
from app.api.schemas.wire import Sent, example

_FAMILY = {"name": "animals", "members": ["breeds", "moods"], "created_at": "2026-01-02T12:00:00Z"}


class FamilyAnswer(Sent):
    model_config = ConfigDict(json_schema_extra=example(_FAMILY))

    name: str
    members: list[str] = Field(description="Names of its models, in the order in which they came.")
    created_at: datetime


class FamiliesAnswer(Sent):
    model_config = ConfigDict(json_schema_extra=example({"families": [_FAMILY]}))

    families: list[FamilyAnswer]


class FamilyMembersAnswer(Sent):
    name: str
    created_at: datetime
    members: list[ModelAnswer] = Field(description="As GET /v1/models/{model} shows each.")
