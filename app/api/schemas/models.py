"""The forms of models: created, taught by a recipe, shown."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, field_validator, model_validator

from app.api.schemas.versions import PrequentialAnswer, TestAnswer
from app.api.schemas.wire import LabelText, ReasonText, Received, Sent, example
from app.batching import Batching
from app.recipe import NewModel, or_a_name

_LABEL: TypeAdapter[str] = TypeAdapter(LabelText)


class ModelRequest(NewModel):
    """What creates a model: every field but `name` and `input` has a default."""

    model_config = ConfigDict(
        title="NewModel",
        json_schema_extra=example(
            {
                "name": "iris",
                "input": {"kind": "features", "size": 4},
                "labels": ["setosa", "versicolor"],
                "recipe": {"trigger": {"samples": 32, "seconds": 10}},
            },
            {
                "name": "birds",
                "input": {"kind": "image", "size": 96, "channels": 3},
                "network": {"architecture": "mobilenet_v2", "weights": "imagenet"},
                "recipe": "frozen-backbone",
            },
            {
                "name": "boxes",
                "input": {"kind": "features", "size": 2},
                "recipe": {"based_on": "drift", "head": {"forgetting": 0.99}},
            },
            {
                "name": "pets",
                "input": {"kind": "image", "size": 64, "channels": 3},
                "network": {"architecture": "resnet18", "weights": None},
                "labels": ["cat", "dog"],
                "recipe": {
                    "trainable": "all",
                    "penalties": [{"kind": "l2_sp", "anchor": "previous", "strength": 0.01}],
                    "memory": {"kind": "class_balanced", "capacity": 2000},
                    "optimizer": {"kind": "sgd", "lr": 0.01, "momentum": 0.9},
                    "batch_size": 32,
                    "trigger": {"samples": 32, "seconds": 10},
                    "holdout": 0.1,
                    "gate": {"margin": 0.02, "alpha": 0.05},
                    "new_classes": {"policy": "propose", "after": 5},
                },
            },
        ),
    )

    @field_validator("labels")
    @classmethod
    def _printable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_LABEL.validate_python(label) for label in value)


class ModelChange(Received):
    """What to change; what is left out stays.

    Of a recipe, a list or a part of another `kind` is replaced whole. With a name, alone or as `based_on`, the change
    starts from that recipe instead of the old one. Of `batching`, what is left out goes back to its default.
    """

    model_config = ConfigDict(
        json_schema_extra=example(
            {"recipe": {"optimizer": {"lr": 0.02}, "trigger": {"samples": 64}}},
            {"recipe": "from-scratch"},
            {"recipe": {"based_on": "from-scratch", "optimizer": {"kind": "adam"}}},
            {"batching": {"max_items": 32, "window_ms": 2}},
        ),
    )

    recipe: dict[str, Any] | None = Field(default=None, json_schema_extra=or_a_name)
    batching: Batching | None = None

    @field_validator("recipe", mode="before")
    @classmethod
    def _from_its_name(cls, value: Any) -> Any:
        return {"based_on": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _something(self) -> "ModelChange":
        if self.recipe is None and self.batching is None:
            raise ValueError("name at least one of recipe, batching")
        return self


class ReasonRequest(Received):
    model_config = ConfigDict(json_schema_extra=example({"reason": "labels of last week are under review"}))

    reason: ReasonText = Field(default="", description="Stands in the audit log.")


class RunRequest(ReasonRequest):
    model_config = ConfigDict(json_schema_extra=example({"reason": "the new labels should be live before noon"}))

    lane: Literal["fast", "slow"] | None = Field(
        default=None,
        description="`fast`: put what waits into a head that is solved. `slow`: take gradient steps on what was "
        "learned already, without claiming labels. null: whichever takes what waits.",
    )


class QueueAnswer(Sent):
    queued: int
    oldest_seconds: float | None


class ModelAnswer(Sent):
    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "name": "iris",
                "live": 17,
                "epoch": 17,
                "labels": ["setosa", "versicolor", "virginica"],
                "proposed_labels": [],
                "queue": {"queued": 3, "oldest_seconds": 1.2},
                "accuracy": 0.96,
                "test": {"accuracy": 0.94, "n": 50},
                "prequential": {"whole": 0.9, "window": 0.94, "fading": 0.93, "n": 400, "no_change": 0.35},
                "pinned": False,
                "learning": True,
                "input": {"kind": "features", "size": 4},
                "network": {"architecture": "mlp", "weights": None},
                "recipe": {"trainable": "all", "batch_size": 32},
                "batching": {"max_items": 64, "window_ms": 0.0, "queue_items": None},
                "family": None,
                "recipe_number": 1,
                "created_at": "2026-01-02T12:00:00Z",
            }
        ),
    )

    name: str
    live: int = Field(description="Number of the version that answers.")
    epoch: int = Field(description="How often the pointer to the live version has moved.")
    labels: list[str]
    proposed_labels: list[str] = Field(description="Labels that wait for more samples before they become classes.")
    queue: QueueAnswer
    accuracy: float | None = Field(description="Of the live version on its held-out samples; null if not measured.")
    test: TestAnswer | None = Field(description="Of the live version on the test split; null without one.")
    prequential: PrequentialAnswer | None = Field(
        description="How the line answered samples before it learned them; null if not measured."
    )
    pinned: bool = Field(description="Whether promotions are held.")
    learning: bool = Field(description="False while learning is paused.")
    input: dict[str, Any]
    network: dict[str, Any]
    recipe: dict[str, Any]
    batching: Batching
    family: str | None = Field(description="The models with which it shares a backbone; null for none.")
    recipe_number: int
    created_at: datetime


class ModelsAnswer(Sent):
    models: list[ModelAnswer]
