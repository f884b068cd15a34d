"""The forms of predict: inputs in, answers out."""

from datetime import datetime
from math import isfinite
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field

from app.api.limits import ITEMS
from app.api.schemas.wire import Number, Received, Sent, example

INPUT_FIELDS = ("image", "text", "features")


def _number(score: object) -> object:
    return None if isinstance(score, float) and not isfinite(score) else score


Score = Annotated[float | None, BeforeValidator(_number)]


class PredictInput(Received):
    """One input; exactly one of the fields, the one that the model takes."""

    image: str | None = Field(default=None, description="A PNG, JPEG or WebP file in base64.")
    text: str | None = Field(default=None, max_length=20_000)
    features: list[Number] | None = Field(default=None, max_length=65_536, description="Numbers on their raw scales.")


class PredictRequest(Received):
    """Inputs of one kind, answered by one version, in their order."""

    model_config = ConfigDict(
        json_schema_extra=example({"inputs": [{"features": [5.1, 3.5, 1.4, 0.2]}], "top_k": 3}),
    )

    inputs: list[PredictInput] = Field(min_length=1, max_length=ITEMS)
    top_k: int = Field(default=5, ge=1, le=100, description="How many labels `top` holds at most.")


class LabelScore(Sent):
    label: str
    score: Score = Field(description="Share of belief, 0 to 1; null where the version gave no number.")


class PredictionAnswer(Sent):
    """What the version says of one input."""

    prediction_id: str = Field(description="Name it in a sample to label this very input later.")
    label: str | None = Field(description="null while the model knows no class.")
    score: float | None
    top: list[LabelScore]
    ask_for_label: bool = Field(default=False, description="Whether a label of this input would teach much.")


_PREDICTION = {
    "prediction_id": "019aa5e2-7c1e-7b5a-9d1c-0a1b2c3d4e5f",
    "label": "setosa",
    "score": 0.97,
    "top": [{"label": "setosa", "score": 0.97}, {"label": "versicolor", "score": 0.03}],
    "ask_for_label": False,
}


class PredictAnswer(Sent):
    model_config = ConfigDict(
        json_schema_extra=example({"model": "iris", "version": 17, "predictions": [_PREDICTION]}),
    )

    model: str
    version: int
    predictions: list[PredictionAnswer]


class PredictionRecordAnswer(Sent):
    """What was answered at the time, and by which version."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                **{key: value for key, value in _PREDICTION.items() if key != "ask_for_label"},
                "model": "iris",
                "version": 17,
                "created_at": "2026-01-02T12:03:00Z",
            }
        ),
    )

    prediction_id: str
    model: str
    version: int
    label: str | None
    score: Score
    top: list[LabelScore]
    created_at: datetime
