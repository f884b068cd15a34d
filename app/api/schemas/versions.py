"""The forms of versions and of the moves between them."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from app.api.schemas.wire import ReasonText, Received, Sent, example

_VERSION = {
    "version": 17,
    "id": "019aa5e2-7c1e-7b5a-9d1c-0a1b2c3d4e5f",
    "parent": 16,
    "live": True,
    "delta": False,
    "verdict": "promoted",
    "reason": "accuracy 94.0 % → 96.0 % (n=120)",
    "accuracy": 0.96,
    "test": {"accuracy": 0.94, "n": 50},
    "prequential": {"whole": 0.9, "window": 0.94, "fading": 0.93, "n": 400, "no_change": 0.35},
    "metrics": {"accuracy": 0.96},
    "counts": {"learn": 32, "holdout": 3},
    "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "files": "present",
    "network": {"architecture": "mlp", "weights": None},
    "labels": ["setosa", "versicolor", "virginica"],
    "recipe_number": 1,
    "created_at": "2026-01-02T12:00:09Z",
}


class TestAnswer(Sent):
    """On samples that neither teach nor judge: a figure nobody has tuned for."""

    __test__ = False  # no test, whatever pytest takes the name for

    accuracy: float | None
    n: int


class PrequentialAnswer(Sent):
    """How the line answered samples before it learned them, up to this version."""

    whole: float | None = Field(default=None, description="Of all of them.")
    window: float | None = Field(default=None, description="Of the newest of them.")
    fading: float | None = Field(default=None, description="Of all, older ones counting less and less.")
    n: int = 0
    no_change: float | None = Field(
        default=None, description="What repeating the last label would have got: labels that come in runs flatter all."
    )


class VersionAnswer(Sent):
    """What an update made, and how it was judged."""

    model_config = ConfigDict(json_schema_extra=example(_VERSION))

    version: int
    id: str
    parent: int | None
    live: bool
    delta: bool = Field(description="Whether it changed the head alone.")
    verdict: str
    reason: str
    accuracy: float | None = Field(description="On its held-out samples; null if not measured.")
    test: TestAnswer | None = Field(description="On the test split; null without one.")
    prequential: PrequentialAnswer | None = Field(description="null where nothing was answered before it was learned.")
    metrics: dict[str, Any]
    counts: dict[str, int] = Field(description="Label revisions it took in, by role.")
    digest: str | None = Field(description="Of the weight file; null for version 1, which has none.")
    files: str
    network: dict[str, Any]
    labels: list[str]
    recipe_number: int
    created_at: datetime


class VersionsAnswer(Sent):
    model_config = ConfigDict(json_schema_extra=example({"versions": [_VERSION], "next_cursor": "17"}))

    versions: list[VersionAnswer]
    next_cursor: str | None


class PromoteRequest(Received):
    model_config = ConfigDict(json_schema_extra=example({"reason": "checked by hand", "force": False}))

    reason: ReasonText = ""
    force: bool = Field(default=False, description="Promote what the gate did not vouch for, or a pinned model.")

    @model_validator(mode="after")
    def _force_says_why(self) -> Self:
        if self.force and not self.reason.strip():
            raise ValueError("a forced promotion needs a reason: say in `reason` why the gate is overruled")
        return self


class RollbackRequest(Received):
    model_config = ConfigDict(
        json_schema_extra=example({"samples": "quarantine", "pin": False, "reason": "complaints about 'dog'"}),
    )

    to: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="A version; what the live one falls back to when left out."
    )
    samples: Literal["quarantine", "requeue", "keep"] = Field(
        default="quarantine", description="What becomes of samples learned only after that version."
    )
    pin: bool = Field(default=False, description="Hold promotions from now on.")
    reason: ReasonText = ""


class ServerAnswer(Sent):
    server: str
    host: str
    pid: int
    epoch: int
    error: str | None


class MoveAnswer(Sent):
    """The move is made; `servers` show it already, `stragglers` did not within 5 s."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "live": 16,
                "previous": 17,
                "servers": [{"server": "019aa5e2", "host": "web-1", "pid": 12, "epoch": 18, "error": None}],
                "stragglers": [],
                "samples": {"quarantined": 32},
                "took_ms": 42,
            }
        ),
    )

    live: int
    previous: int
    servers: list[ServerAnswer]
    stragglers: list[ServerAnswer]
    samples: dict[str, int] = Field(description="How many samples the move touched, by what became of them.")
    took_ms: int
