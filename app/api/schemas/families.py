"""The forms of families: models that share one backbone."""

from datetime import datetime

from pydantic import ConfigDict, Field

from app.api.schemas.models import ModelAnswer
from app.api.schemas.predict import PredictionAnswer
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


class FamilyPredictAnswer(Sent):
    """What every member says of each input, in the inputs' order: one pass through the backbone feeds all heads."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "family": "animals",
                "versions": {"breeds": 17, "moods": 9},
                "predictions": [
                    {
                        "breeds": {
                            "prediction_id": "019aa5e2-7c1e-7b5a-9d1c-0a1b2c3d4e5f",
                            "label": "beagle",
                            "score": 0.97,
                            "top": [{"label": "beagle", "score": 0.97}],
                            "ask_for_label": False,
                        },
                        "moods": {
                            "prediction_id": "019aa5e2-7c1e-7b5a-9d1c-0a1b2c3d4e60",
                            "label": "calm",
                            "score": 0.8,
                            "top": [{"label": "calm", "score": 0.8}, {"label": "alert", "score": 0.2}],
                            "ask_for_label": False,
                        },
                    }
                ],
            }
        ),
    )

    family: str
    versions: dict[str, int] = Field(description="By member: which version answered.")
    predictions: list[dict[str, PredictionAnswer]] = Field(description="One of each member for each input.")
