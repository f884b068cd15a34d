"""What the worker has done, counted for Prometheus; and how old the labels of a version are.

Finished updates never change, so they are counted once and only what came since is read again.
"""

import threading
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.storage.database import Database, literal, now, reads
from app.storage.states import LedgerRole, UpdateState
from app.storage.tables import LedgerEntry, Model, Revision, Update, Version

SETTLED = timedelta(minutes=1)  # by then a transaction that took a smaller id has ended too


@dataclass(frozen=True)
class Done:
    """What updates are counted by. `verdict` is empty where none was given."""

    model: str
    kind: str
    lane: str
    state: str
    verdict: str


@dataclass(frozen=True)
class LabelAges:
    """Seconds since the newest and the oldest label that a version was the first to learn were posted."""

    newest: float
    oldest: float


class LearningFigures:
    """Reads for figures; safe to call from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counting = threading.Lock()
        self._counted: Counter[Done] = Counter()
        self._counted_to = 0  # every update up to this id has ended and is counted

    def updates(self) -> dict[Done, int]:
        """How many updates have ended, ever, in each way."""
        with self._counting:
            settled, before, since = self._since(self._counted_to)
            self._counted += before
            self._counted_to = settled
            return dict(self._counted + since)

    @reads
    def _since(self, session: Session, after: int) -> tuple[int, Counter[Done], Counter[Done]]:
        """The id up to which all has ended; what ended above `after` up to it, and what ended beyond."""
        long_ago = now(session) - SETTLED
        running = session.scalar(select(func.min(Update.id)).where(Update.state == literal(UpdateState.RUNNING)))
        newest = session.scalar(select(func.max(Update.id)).where(Update.id > after, Update.started_at < long_ago))
        settled = after if newest is None else newest
        if running is not None:
            settled = max(after, min(settled, running - 1))  # what is counted already is never counted again
        return settled, _ended(session, after, settled), _ended(session, settled, None)

    @reads
    def label_ages(self, session: Session, version_id: str) -> LabelAges | None:
        """How old the labels are that this version's update taught it; None where it taught none."""
        oldest, newest = session.execute(
            select(func.min(Revision.created_at), func.max(Revision.created_at))
            .join(LedgerEntry, LedgerEntry.revision_id == Revision.id)
            .where(LedgerEntry.version_id == version_id, LedgerEntry.role == LedgerRole.LEARN)
        ).one()
        at = now(session)
        return None if oldest is None else LabelAges(_seconds(newest, at), _seconds(oldest, at))


def _seconds(since: datetime, to: datetime) -> float:
    return max(0.0, (to - since).total_seconds())


def _ended(session: Session, after: int, to: int | None) -> Counter[Done]:
    query = (
        select(Model.name, Update.kind, Update.lane, Update.state, Version.verdict, func.count())
        .join(Model, Model.id == Update.model_id)
        .outerjoin(Version, Version.update_id == Update.id)
        .where(Update.id > after, Update.state != literal(UpdateState.RUNNING))
        .group_by(Model.name, Update.kind, Update.lane, Update.state, Version.verdict)
    )
    if to is not None:
        query = query.where(Update.id <= to)
    rows = session.execute(query)
    return Counter(
        {Done(name, kind, lane, state, verdict or ""): count for name, kind, lane, state, verdict, count in rows}
    )
