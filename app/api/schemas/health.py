"""The forms of the health calls."""

from pydantic import ConfigDict

from app.api.schemas.wire import Sent, example


class LiveAnswer(Sent):
    model_config = ConfigDict(json_schema_extra=example({"status": "alive"}))

    status: str


class ReadyAnswer(Sent):
    model_config = ConfigDict(json_schema_extra=example({"status": "ready", "waiting": [], "degraded": []}))

    status: str
    waiting: list[str]
    degraded: list[str]
