"""What became of a sample, told from its revisions and the ledger. Called by the API; changes nothing."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import UnknownSample
from app.storage.database import Database, literal, now, reads
from app.storage.promotions import chunks
from app.storage.states import LedgerRole, RevisionAction, RevisionState, Verdict
from app.storage.tables import Label, LedgerEntry, Model, Revision, Sample, Version

_WORDS = {RevisionAction.ADD: "labelled", RevisionAction.REPLACE: "corrected", RevisionAction.REMOVE: "taken out"}


@dataclass(frozen=True)
class Step:
    """One thing that happened to a sample; `version` where a version was part of it."""

    at: datetime
    what: str
    version: int | None = None
    actor: str | None = None


@dataclass(frozen=True)
class Receipt:
    """A sample with its label's name, the version that holds it, and its history, oldest first."""

    sample: Sample
    label: str
    version: int | None
    history: list[Step]


@dataclass(frozen=True)
class Depth:
    """How much waits in a model's queue, and for how long."""

    queued: int
    oldest_seconds: float | None


class Receipts:
    """Reads samples for people."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @reads
    def get(self, session: Session, model: Model, sample_id: str) -> Receipt:
        sample = session.scalar(select(Sample).where(Sample.id == sample_id, Sample.model_id == model.id))
        if sample is None:
            raise UnknownSample(sample_id)
        return _receipts(session, model, [sample])[0]

    @reads
    def list(
        self,
        session: Session,
        model: Model,
        *,
        state: str | None = None,
        label: str | None = None,
        source: str | None = None,
        version: int | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Receipt]:
        """Newest first, ids below `before`. `version` keeps the samples that this version took in."""
        query = select(Sample).where(Sample.model_id == model.id).order_by(Sample.id.desc()).limit(limit)
        if state is not None:
            query = query.where(Sample.state == state)
        if source is not None:
            query = query.where(Sample.source == source)
        if label is not None:
            named = select(Label.id).where(Label.model_id == model.id, Label.name == label).scalar_subquery()
            query = query.where(Sample.label_id == named)
        if version is not None:
            taken = (
                select(Revision.sample_id)
                .join(LedgerEntry, LedgerEntry.revision_id == Revision.id)
                .join(Version, Version.id == LedgerEntry.version_id)
                .where(Version.model_id == model.id, Version.number == version)
            )
            query = query.where(Sample.id.in_(taken))
        if before is not None:
            query = query.where(Sample.id < before)
        return _receipts(session, model, session.scalars(query).all())

    @reads
    def depth(self, session: Session, model_id: int) -> Depth:
        queued, oldest = session.execute(
            select(func.count(), func.min(Revision.created_at)).where(
                Revision.model_id == model_id, Revision.state == literal(RevisionState.QUEUED)
            )
        ).one()
        return Depth(queued, None if oldest is None else max(0.0, (now(session) - oldest).total_seconds()))


def _receipts(session: Session, model: Model, samples: Sequence[Sample]) -> list[Receipt]:
    names = {label.id: label.name for label in session.scalars(select(Label).where(Label.model_id == model.id))}
    histories = _histories(session, [sample.id for sample in samples], names)
    numbers: dict[str, int] = {}
    for ids in chunks({sample.version_id for sample in samples if sample.version_id}):
        numbers.update(dict(session.execute(select(Version.id, Version.number).where(Version.id.in_(ids))).all()))
    return [
        Receipt(sample, names[sample.label_id], numbers.get(sample.version_id or ""), histories[sample.id])
        for sample in samples
    ]


def _histories(session: Session, sample_ids: Collection[str], names: dict[int, str]) -> dict[str, list[Step]]:
    steps: dict[str, list[Step]] = defaultdict(list)
    for ids in chunks(sample_ids):
        for revision in session.scalars(select(Revision).where(Revision.sample_id.in_(ids))):
            word = _WORDS[RevisionAction(revision.action)]
            what = word if revision.action == RevisionAction.REMOVE else f"{word} {names[revision.label_id]!r}"
            steps[revision.sample_id].append(Step(revision.created_at, what, None, revision.actor))
        entries = session.execute(
            select(Revision.sample_id, LedgerEntry.role, Version)
            .join(Revision, Revision.id == LedgerEntry.revision_id)
            .join(Version, Version.id == LedgerEntry.version_id)
            .where(Revision.sample_id.in_(ids))
        )
        for sample_id, role, version in entries:
            steps[sample_id].append(Step(version.created_at, _outcome(role, version.verdict), version.number, "worker"))
    for history in steps.values():
        history.sort(key=lambda step: step.at)
    return steps


def _outcome(role: str, verdict: str) -> str:
    done = "held out" if role == LedgerRole.HOLDOUT else "learned"
    if verdict in (Verdict.PROMOTED, Verdict.INITIAL):
        return done
    return f"{done} by a candidate that was {verdict}"
