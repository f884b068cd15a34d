"""The forms of the matrix: how each version did on each class, and on what came in each span of time."""

from datetime import datetime
from enum import StrEnum

from pydantic import ConfigDict, Field

from app.api.schemas.versions import PrequentialAnswer, TestAnswer
from app.api.schemas.wire import Sent, example


class Slice(StrEnum):
    """How long a span of time is that samples are counted in; times are UTC, weeks are ISO's."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class CellAnswer(Sent):
    accuracy: float
    n: int = Field(description="Held-out samples it was measured on.")


class MatrixRow(Sent):
    """One version; its cells stand in the order of `classes` and of `slices`, null where nothing was measured."""

    version: int
    live: bool
    line: bool = Field(description="Whether it is live or an ancestor of what is live.")
    delta: bool = Field(description="Whether it changed the head alone.")
    verdict: str
    created_at: datetime
    accuracy: float | None
    test: TestAnswer | None
    prequential: PrequentialAnswer | None
    by_class: list[CellAnswer | None]
    by_slice: list[CellAnswer | None]


class MatrixSummary(Sent):
    """Of the line's versions among the rows, each class weighing the same.

    Held-out samples come to be more from version to version, so two rows need not be measured on the same ones.
    """

    versions: int = Field(description="How many rows it was computed from.")
    accuracy: float | None = Field(description="Mean of the classes in the newest of them.")
    average_incremental_accuracy: float | None = Field(
        description="Mean of the versions' means over their classes; average anytime accuracy, too, each version being "
        "an evaluation."
    )
    backward_transfer: float | None = Field(description="Newest less first, mean of the classes; below zero is loss.")
    forward_transfer: float | None = Field(
        description="What the version before a class's first one made of it, less chance, mean of the classes."
    )
    forgetting: float | None = Field(description="The best a class ever was less what it is now, mean of the classes.")
    minimum: float | None = Field(description="The lowest each earlier class fell to after its first version, mean.")
    worst_case: float | None = Field(description="The same with the classes of the newest version as they are now.")


class MatrixAnswer(Sent):
    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "model": "iris",
                "slice": "day",
                "classes": ["setosa", "versicolor"],
                "slices": ["2026-01-01", "2026-01-02"],
                "versions": [
                    {
                        "version": 17,
                        "live": True,
                        "line": True,
                        "delta": True,
                        "verdict": "promoted",
                        "created_at": "2026-01-02T12:00:09Z",
                        "accuracy": 0.95,
                        "test": {"accuracy": 0.94, "n": 50},
                        "prequential": {"whole": 0.9, "window": 0.94, "fading": 0.93, "n": 400, "no_change": 0.35},
                        "by_class": [{"accuracy": 1.0, "n": 12}, {"accuracy": 0.875, "n": 8}],
                        "by_slice": [{"accuracy": 0.9375, "n": 16}, {"accuracy": 1.0, "n": 4}],
                    },
                    {
                        "version": 16,
                        "live": False,
                        "line": True,
                        "delta": False,
                        "verdict": "promoted",
                        "created_at": "2026-01-01T12:00:09Z",
                        "accuracy": 0.9,
                        "test": None,
                        "prequential": None,
                        "by_class": [{"accuracy": 0.9, "n": 10}, None],
                        "by_slice": [{"accuracy": 0.9, "n": 10}, None],
                    },
                ],
                "summary": {
                    "versions": 2,
                    "accuracy": 0.9375,
                    "average_incremental_accuracy": 0.91875,
                    "backward_transfer": 0.1,
                    "forward_transfer": 0.25,
                    "forgetting": -0.1,
                    "minimum": 0.9375,
                    "worst_case": 0.9375,
                },
                "truncated": False,
            }
        ),
    )

    model: str
    slice: Slice
    classes: list[str] = Field(description="The columns of `by_class`.")
    slices: list[str] = Field(
        description="The columns of `by_slice`, oldest first, such as 2026-01-02T12, 2026-01-02, 2026-W01 or 2026-01. "
        "Samples older than two days when a version was judged are counted by the day: as an hour, at T00."
    )
    versions: list[MatrixRow] = Field(description="Newest first.")
    summary: MatrixSummary
    truncated: bool = Field(description="Whether columns were left out: there are at most 500 of each kind.")
