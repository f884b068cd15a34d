"""The forms of samples: what is taught, what became of it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from app.api.limits import ITEMS
from app.api.schemas.wire import LabelText, Number, Received, Sent, ShortText, example
from app.storage.states import SampleState

_ID = "019aa5e2-7c1e-7b5a-9d1c-0a1b2c3d4e5f"


class SampleItem(Received):
    """One labelled input: exactly one of image, text, features or prediction_id says which."""

    model_config = ConfigDict(
        json_schema_extra=example({"id": "row-17", "label": "setosa", "features": [5.1, 3.5, 1.4, 0.2]}),
    )

    id: ShortText | None = Field(default=None, description="Your own id: sent twice, it is one sample.")
    label: LabelText
    image: str | None = Field(default=None, description="A PNG, JPEG or WebP file in base64.")
    text: str | None = Field(default=None, max_length=20_000)
    features: list[Number] | None = Field(default=None, max_length=65_536)
    prediction_id: ShortText | None = Field(default=None, description="Labels the input of that prediction.")
    source: ShortText | None = Field(default=None, description="Who says so; the key's name when left out.")
    why: Literal["audit", "uncertain", "complaint"] | None = Field(
        default=None, description="Why it was labelled, if not at random."
    )
    split: Literal["test"] | None = Field(
        default=None, description="`test`: it neither teaches nor judges, and is only reported on."
    )


class SamplesRequest(Received):
    """Samples in one transaction; the form for OpenAPI: each item is read by itself."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "samples": [
                    {"id": "row-17", "label": "setosa", "features": [5.1, 3.5, 1.4, 0.2]},
                    {"label": "virginica", "prediction_id": _ID, "source": "anna", "why": "complaint"},
                    {"label": "versicolor", "features": [6.0, 2.7, 5.1, 1.6], "split": "test"},
                ]
            }
        ),
    )

    samples: list[SampleItem] = Field(min_length=1, max_length=ITEMS)


class SamplesEnvelope(Received):
    """The same before its items are looked at, so that one bad item does not sink the rest."""

    samples: list[Any] = Field(min_length=1, max_length=ITEMS)


class LabelChange(Received):
    model_config = ConfigDict(json_schema_extra=example({"label": "versicolor"}))

    label: LabelText


class RejectedItem(Sent):
    index: int = Field(description="Place in the request, counting from 0; of NDJSON the line.")
    code: str = Field(description="Stable, for programs.")
    detail: str


class TakenItem(Sent):
    index: int = Field(description="Place in the request, counting from 0; of NDJSON the line.")
    id: str
    state: str
    note: str | None = Field(default=None, description="What holds it up, if anything does.")


class SamplesAnswer(Sent):
    """Sent after the commit: what is counted here survives a crash."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "accepted": 1,
                "duplicates": 0,
                "rejected": [{"index": 1, "code": "wrong_size", "detail": "Expected 4 numbers, got 3."}],
                "samples": [{"index": 0, "id": _ID, "state": "queued", "note": None}],
                "truncated": False,
            }
        ),
    )

    accepted: int
    duplicates: int
    rejected: list[RejectedItem]
    samples: list[TakenItem]
    truncated: bool = Field(default=False, description="The lists end at 10,000 rows; the counts do not.")


class HistoryStep(Sent):
    at: datetime
    what: str
    version: int | None
    actor: str | None


class ReceiptAnswer(Sent):
    """What became of a sample."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "id": _ID,
                "client_id": "row-17",
                "state": "learned",
                "label": "setosa",
                "source": "anna",
                "why": None,
                "split": None,
                "prediction_id": None,
                "version": 17,
                "reason": None,
                "created_at": "2026-01-02T12:00:00Z",
                "updated_at": "2026-01-02T12:00:09Z",
                "history": [{"at": "2026-01-02T12:00:00Z", "what": "queued", "version": None, "actor": "anna"}],
            }
        ),
    )

    id: str
    client_id: str | None
    state: SampleState
    label: str
    source: str
    why: str | None
    split: Literal["test"] | None = Field(
        description="`test`: held out to be reported on; it neither teaches nor judges."
    )
    prediction_id: str | None
    version: int | None
    reason: str | None
    created_at: datetime
    updated_at: datetime
    history: list[HistoryStep]


class ReceiptsAnswer(Sent):
    samples: list[ReceiptAnswer]
    next_cursor: str | None = Field(description="Send it as `cursor` for the page after this one; null at the end.")
