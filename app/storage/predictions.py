"""What was answered, by which version, with the input: kept for a while, so that a label may name it by id.

Written in groups, behind the answer; bounded by age and bytes. Ids are UUIDv7, so their order is that of time.
"""

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import from_json, to_json
from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from app.errors import PredictionExpired, UnknownPrediction
from app.storage.database import Database, now, puts, reads, writes
from app.storage.kept_connection import Cursor
from app.storage.tables import PredictionPack

# A record may lie this long with its writer; a younger id that is not found never was one.
UNWRITTEN = timedelta(seconds=60)
LOOK_SECONDS = 0.05

PACK_RECORDS = 64
_PACK_BYTES = 256 << 10
_PACK_MS = 10_000  # milliseconds that a pack spans at most: so far behind an id its pack is looked for
_PACKS_LET_GO = 64  # in one transaction
_LENGTH = struct.Struct("<I")
_ID_BYTES = 36
_ROW_BYTES = 400  # what a record weighs beside its input, roughly


class PredictionRecord(NamedTuple):
    """One answer, as it is kept; one is made for each prediction, so it is a plain tuple."""

    id: str
    model_id: int
    version: int
    label: str | None
    score: float | None
    top: Sequence[tuple[str, float | None]]  # best first; a score that JSON has no number for is read back as None
    content: bytes
    created_at: datetime


class Encoded(NamedTuple):
    """A record as it is kept: made by whoever answered, written down by another process."""

    id: str
    json: bytes  # everything but the input, and how long that is
    content: bytes

    @classmethod
    def of(cls, record: PredictionRecord) -> "Encoded":
        """A score that JSON has no number for becomes null."""
        moment = _milliseconds(record.created_at)
        json = to_json((*record[:6], moment, len(record.content)), inf_nan_mode="null")
        return cls(record.id, json, record.content)

    def to_bytes(self) -> bytes:
        """One string of it, of which `from_bytes` makes the same again."""
        return b"".join((_LENGTH.pack(len(self.json)), self.id.encode(), self.json, self.content))

    @classmethod
    def from_bytes(cls, encoded: bytes) -> "Encoded":
        (length,) = _LENGTH.unpack_from(encoded)
        at = _LENGTH.size + _ID_BYTES
        return cls(encoded[_LENGTH.size : at].decode(), encoded[at : at + length], encoded[at + length :])


class PredictionLog:
    """Predictions and their inputs."""

    def __init__(self, database: Database, *, patience_seconds: float = 0.0) -> None:
        """With patience, a record that another process may be about to write is waited for until it is so old.

        So all ids that a request names are waited for no longer than that together; one of the future never is.
        """
        self._database = database
        self._patience_seconds = patience_seconds

    @puts
    def write(self, cursor: Cursor, records: Sequence[Encoded]) -> None:
        """Keep a group of records in one transaction; a group that is there already is left as it is."""
        for pack in _packed(records):
            cursor.put(_INSERT, **pack)

    def get(self, model_id: int, prediction_id: str) -> PredictionRecord:
        """The record; `PredictionExpired` when its id is older than what is kept, else `UnknownPrediction`."""
        return self._patiently(prediction_id, lambda: self._get(model_id, prediction_id))

    @reads
    def _get(self, session: Session, model_id: int, prediction_id: str) -> PredictionRecord:
        made = _made_ms(prediction_id)
        if made is None:
            raise UnknownPrediction(prediction_id)
        places = (
            select(PredictionPack.last_id, PredictionPack.entries)
            .where(PredictionPack.last_id.between(prediction_id, _least_id(made + 1 + _PACK_MS)))
            .where(PredictionPack.first_id <= prediction_id)
        )
        for last_id, entries in session.execute(places):
            entry, at = _entry(entries, prediction_id)
            if entry is not None and entry.model_id == model_id:
                content = _input(session, last_id, at, entry.nbytes)
                if content is None:  # let go since
                    raise PredictionExpired(prediction_id)
                return entry.record(content)
        oldest = session.scalar(select(PredictionPack.first_id).order_by(PredictionPack.last_id).limit(1))
        if made < _milliseconds(now(session) - UNWRITTEN) and (oldest is None or prediction_id < oldest):
            raise PredictionExpired(prediction_id)
        raise UnknownPrediction(prediction_id)

    def _patiently(self, prediction_id: str, look: Callable[[], PredictionRecord]) -> PredictionRecord:
        made = _made_ms(prediction_id)
        while True:
            age = None if made is None else (time.time() * 1000 - made) / 1000
            try:
                return look()
            except UnknownPrediction:
                if age is None or not 0 <= age < self._patience_seconds:
                    raise
            time.sleep(LOOK_SECONDS)

    def prune(self, days: float, nbytes: int) -> int:
        """Let go what is older than `days`, and the oldest beyond `nbytes`, pack by pack; how many predictions."""
        cut = self._cut(days, nbytes)  # the long look is a reader's: it holds up no writer
        return sum(iter(lambda: self._let_go(cut), 0))

    @reads
    def _cut(self, session: Session, days: float, nbytes: int) -> str:
        old = _least_id(_milliseconds(now(session) - timedelta(days=days)))
        running = func.sum(PredictionPack.nbytes).over(order_by=PredictionPack.last_id.desc())
        weighed = select(PredictionPack.last_id, running.label("total")).subquery()
        beyond = session.scalar(select(func.max(weighed.c.last_id)).where(weighed.c.total > nbytes))
        return max(old, beyond or "")

    @writes
    def _let_go(self, session: Session, cut: str) -> int:
        """Delete the oldest packs up to the cut, not all at once: others wait for a writer."""
        named = select(PredictionPack.last_id, PredictionPack.predictions).where(PredictionPack.last_id <= cut)
        packs = session.execute(named.order_by(PredictionPack.last_id).limit(_PACKS_LET_GO)).all()
        if packs:
            session.execute(delete(PredictionPack).where(PredictionPack.last_id <= packs[-1].last_id))
        return sum(pack.predictions for pack in packs)


_INSERT = text(
    "INSERT INTO prediction_packs (last_id, first_id, predictions, nbytes, entries, inputs) "
    "VALUES (:last_id, :first_id, :predictions, :nbytes, :entries, :inputs) ON CONFLICT DO NOTHING"
)


class _Entry(NamedTuple):
    """A record without its input, as it is read from a pack's JSON."""

    id: str
    model_id: int
    version: int
    label: str | None
    score: float | None
    top: Sequence[tuple[str, float | None]]
    created_at: int  # milliseconds since 1970
    nbytes: int

    def record(self, content: bytes) -> PredictionRecord:
        moment = datetime.fromtimestamp(self.created_at / 1000, UTC)
        return PredictionRecord(*self[:5], [(label, score) for label, score in self.top], content, moment)


def _packed(records: Sequence[Encoded]) -> Iterator[dict[str, Any]]:
    """Make rows of records: the same ones of the same records, so that a group written twice is there once."""
    left = sorted(records)  # by id, which comes first
    while left:
        pack = left[:PACK_RECORDS]
        until = _least_id((_made_ms(pack[0].id) or 0) + _PACK_MS)
        sizes = list(accumulate(len(one.content) + _ROW_BYTES for one in pack))
        if sizes[-1] > _PACK_BYTES or pack[-1].id >= until:
            fits = sum(size <= _PACK_BYTES and one.id < until for one, size in zip(pack, sizes, strict=True))
            pack = pack[: max(1, fits)]
        left = left[len(pack) :]
        yield _row(pack, sizes[len(pack) - 1])


def _row(pack: Sequence[Encoded], nbytes: int) -> dict[str, Any]:
    return {
        "last_id": pack[-1].id,
        "first_id": pack[0].id,
        "predictions": len(pack),
        "nbytes": nbytes,
        "entries": (b"[" + b",".join([one.json for one in pack]) + b"]").decode(),
        "inputs": b"".join([one.content for one in pack]),
    }


def _entry(entries: str, prediction_id: str) -> tuple[_Entry | None, int]:
    """Find an entry of a pack; it, and where its input begins."""
    found = [_Entry(*entry) for entry in from_json(entries)]
    for entry, at in zip(found, accumulate((one.nbytes for one in found), initial=0), strict=False):
        if entry.id == prediction_id:
            return entry, at
    return None, 0


def _input(session: Session, last_id: str, at: int, nbytes: int) -> bytes | None:
    """Give a part of a pack's inputs, without what lies around it; None where the pack is gone."""
    if not nbytes:  # of nothing at all `substr` gives null
        return b""
    part = func.substr(PredictionPack.inputs, at + 1, nbytes)
    found: bytes | None = session.scalar(select(part).where(PredictionPack.last_id == last_id))
    return found


def _made_ms(prediction_id: str) -> int | None:
    """When an id of ours was made, in milliseconds since 1970: UUIDv7 begins with them (RFC 9562, section 5.7)."""
    try:
        value = UUID(prediction_id)
    except ValueError:
        return None
    return value.int >> 80 if value.version == 7 else None


def _least_id(milliseconds: int) -> str:
    """The least id that can be made in that millisecond."""
    digits = f"{milliseconds:012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
