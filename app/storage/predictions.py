"""What was answered, by which version, with the input: kept for a while, so that a label may name it by id.

Written in groups, behind the answer; bounded by age and bytes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from app.errors import PredictionExpired, UnknownPrediction
from app.storage.database import Database, now, reads, writes
from app.storage.promotions import chunks
from app.storage.tables import Prediction, PredictionInput

# A record may lie this long with its writer; a younger id that is not found never was one.
UNWRITTEN = timedelta(seconds=60)
LOOK_SECONDS = 0.05
_ROW_BYTES = 400  # what a record weighs beside its input, roughly

T = TypeVar("T")


@dataclass(frozen=True)
class PredictionRecord:
    """One answer, as it is kept. `top` is a list of {"label", "score"}, best first."""

    id: str
    model_id: int
    version: int
    label: str | None
    score: float | None
    top: list[dict[str, Any]] = field(default_factory=list)
    content: bytes = b""
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class PredictionLog:
    """Predictions and their inputs."""

    def __init__(self, database: Database, *, patience_seconds: float = 0.0) -> None:
        """With patience, a record that another process may be about to write is waited for until it is so old."""
        self._database = database
        self._patience_seconds = patience_seconds

    @writes
    def write(self, session: Session, records: Sequence[PredictionRecord]) -> None:
        """Keep a group of records in one transaction; a record that is there already is left as it is."""
        there: set[str] = set()
        for ids in chunks([record.id for record in records]):
            there.update(session.scalars(select(Prediction.id).where(Prediction.id.in_(ids))))
        fresh = [record for record in records if record.id not in there]
        if not fresh:
            return
        session.execute(
            insert(Prediction),
            [
                {
                    "id": record.id,
                    "model_id": record.model_id,
                    "version": record.version,
                    "label": record.label,
                    "score": record.score,
                    "top": record.top,
                    "nbytes": len(record.content) + _ROW_BYTES,
                    "created_at": record.created_at,
                }
                for record in fresh
            ],
        )
        session.execute(
            insert(PredictionInput), [{"prediction_id": record.id, "content": record.content} for record in fresh]
        )

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
            young = made is not None and abs(_age_seconds(made)) < self._patience_seconds
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
