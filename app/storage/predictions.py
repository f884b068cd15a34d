"""What was answered, by which version, with the input: kept for a while, so that a label may name it by id.

Written in groups, behind the answer; bounded by age and bytes.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from app.errors import PredictionExpired, UnknownPrediction
from app.storage.database import Database, now, reads, writes
from app.storage.tables import Prediction, PredictionInput

# A record may lie this long with its writer; a younger id that is not found never was one.
UNWRITTEN = timedelta(seconds=60)
LOOK_SECONDS = 0.05
_PACK = 64  # records to a statement
_ROW_BYTES = 400  # what a record weighs beside its input, roughly

T = TypeVar("T")


class PredictionRecord(NamedTuple):
    """One answer, as it is kept; one is made for each prediction, so it is a plain tuple."""

    id: str
    model_id: int
    version: int
    label: str | None
    score: float | None
    top: Sequence[tuple[str, float]]  # best first
    content: bytes
    created_at: datetime

    @property
    def listed_top(self) -> list[dict[str, Any]]:
        """The most believed labels as the column holds them; a score that JSON has no number for is null."""
        return [{"label": label, "score": _number(score)} for label, score in self.top]


class PredictionLog:
    """Predictions and their inputs."""

    def __init__(self, database: Database, *, patience_seconds: float = 0.0) -> None:
        """With patience, a record that another process may be about to write is waited for until it is so old.

        So all ids that a request names are waited for no longer than that together; one of the future never is.
        """
        self._database = database
        self._patience_seconds = patience_seconds

    @writes
    def write(self, session: Session, records: Sequence[PredictionRecord]) -> None:
        """Keep a group of records in one transaction; a record that is there already is left as it is."""
        if self._database.dialect == "sqlite":
            for start in range(0, len(records), _PACK):
                _insert_packed(session, records[start : start + _PACK])
            return
        rows = [_row(record) for record in records]
        session.execute(postgresql.insert(Prediction).on_conflict_do_nothing(), rows)
        inputs = [{"prediction_id": record.id, "content": record.content} for record in records]
        session.execute(postgresql.insert(PredictionInput).on_conflict_do_nothing(), inputs)

    def get(self, model_id: int, prediction_id: str) -> Prediction:
        """The record; `PredictionExpired` when its id is older than what is kept, else `UnknownPrediction`."""
        return self._patiently(prediction_id, lambda: self._get(model_id, prediction_id))

    def content(self, model_id: int, prediction_id: str) -> bytes:
        """The input's payload bytes."""
        return self._patiently(prediction_id, lambda: self._content(model_id, prediction_id))

    @reads
    def _get(self, session: Session, model_id: int, prediction_id: str) -> Prediction:
        return _found(session, model_id, prediction_id)

    @reads
    def _content(self, session: Session, model_id: int, prediction_id: str) -> bytes:
        _found(session, model_id, prediction_id)
        return session.get_one(PredictionInput, prediction_id).content

    def _patiently(self, prediction_id: str, look: Callable[[], T]) -> T:
        made = _moment_of(prediction_id)
        while True:
            young = made is not None and 0 <= _age_seconds(made) < self._patience_seconds
            try:
                return look()
            except UnknownPrediction:
                if not young:
                    raise
            time.sleep(LOOK_SECONDS)

    def prune(self, days: float, nbytes: int) -> int:
        """Let go what is older than `days`, and the oldest beyond `nbytes`; how many."""
        return self._let_go(self._cut(days, nbytes))  # the long look is a reader's: it holds up no writer

    @reads
    def _cut(self, session: Session, days: float, nbytes: int) -> datetime:
        cut = now(session) - timedelta(days=days)
        running = func.sum(Prediction.nbytes).over(order_by=(Prediction.created_at.desc(), Prediction.id.desc()))
        weighed = select(Prediction.created_at, running.label("total")).subquery()
        beyond = session.scalar(select(func.max(weighed.c.created_at)).where(weighed.c.total > nbytes))
        if beyond is not None:
            cut = max(cut, beyond + timedelta(milliseconds=1))
        return cut

    @writes
    def _let_go(self, session: Session, cut: datetime) -> int:
        old = select(Prediction.id).where(Prediction.created_at < cut)
        session.execute(delete(PredictionInput).where(PredictionInput.prediction_id.in_(old)))
        removed = session.execute(delete(Prediction).where(Prediction.created_at < cut))
        return int(getattr(removed, "rowcount", 0))


def _row(record: PredictionRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "model_id": record.model_id,
        "version": record.version,
        "label": record.label,
        "score": _number(record.score),
        "top": record.listed_top,
        "nbytes": len(record.content) + _ROW_BYTES,
        "created_at": record.created_at,
    }


# One statement a table for many rows: between two statements the writing thread waits its turn among those that
# serve, thousands of times a second if each row were one. Not for all: what is put together for a statement is put
# together in one go, and those that serve wait meanwhile. In words that SQLite had before 3.38, and with
# an empty part for an empty input: of nothing at all `substr` gives null.
_PREDICTIONS = text("""
    INSERT OR IGNORE INTO predictions (id, model_id, version, label, score, top, nbytes, created_at)
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
        json_extract(value, '$[6]'), json_extract(value, '$[7]')
    FROM json_each(:rows)
""")
_INPUTS = text("""
    INSERT OR IGNORE INTO prediction_inputs (prediction_id, content)
    SELECT json_extract(value, '$[0]'),
        coalesce(substr(:contents, json_extract(value, '$[1]'), json_extract(value, '$[2]')), x'')
    FROM json_each(:places)
""")


def _insert_packed(session: Session, records: Sequence[PredictionRecord]) -> None:
    """Insert records into SQLite as one JSON text, and their inputs as one blob with places in it."""
    rows = [
        (
            record.id,
            record.model_id,
            record.version,
            record.label,
            _number(record.score),
            record.listed_top,
            len(record.content) + _ROW_BYTES,
            round(record.created_at.timestamp() * 1000),
        )
        for record in records
    ]
    places = []
    at = 1  # substr counts from one
    for record in records:
        places.append((record.id, at, len(record.content)))
        at += len(record.content)
    session.execute(_PREDICTIONS, {"rows": to_json(rows).decode()})
    contents = b"".join(record.content for record in records)
    session.execute(_INPUTS, {"contents": contents, "places": to_json(places).decode()})


def _number(score: float | None) -> float | None:
    return score if score is not None and isfinite(score) else None


def _found(session: Session, model_id: int, prediction_id: str) -> Prediction:
    row = session.get(Prediction, prediction_id)
    if row is not None and row.model_id == model_id:
        return row
    made = _moment_of(prediction_id)
    if row is None and made is not None:
        oldest = session.scalar(select(func.min(Prediction.created_at)))
        at = now(session)
        if made < (oldest or at - UNWRITTEN) and made < at - UNWRITTEN:
            raise PredictionExpired(prediction_id)
    raise UnknownPrediction(prediction_id)


def _age_seconds(made: datetime) -> float:
    return (datetime.now(UTC) - made).total_seconds()


def _moment_of(prediction_id: str) -> datetime | None:
    """When an id of ours was made: UUIDv7 begins with the milliseconds since 1970 (RFC 9562, section 5.7)."""
    try:
        value = UUID(prediction_id)
    except ValueError:
        return None
    if value.version != 7:
        return None
    return datetime.fromtimestamp((value.int >> 80) / 1000, UTC)
