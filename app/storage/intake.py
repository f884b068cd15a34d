"""Samples come in, are corrected and withdrawn: each becomes a label revision in the queue (T0).

Called by the API with payloads that were checked already. What is answered as accepted is on the disk.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Select, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from uuid_utils import uuid7

from app.errors import Conflict, InvalidItem, Overloaded, UnknownSample
from app.storage.database import Database, literal, now, reads, writes
from app.storage.labels import LabelBook
from app.storage.promotions import chunks, last_promotion, lock_model, record
from app.storage.revisions import new_revision, newest_revision, quarantine_sample, withdraw_sample
from app.storage.states import LabelState, LedgerRole, RevisionAction, RevisionState, SampleState, UpdateState
from app.storage.tables import Label, LedgerEntry, Model, Payload, Revision, Sample, Update


@dataclass(frozen=True)
class NewSample:
    """A checked input and its label, as posted."""

    content: bytes
    label: str
    client_id: str | None = None
    source: str = "unknown"
    why: str | None = None
    prediction_id: str | None = None
    split: str | None = None  # `test`: neither taught nor judging, only reported on


@dataclass(frozen=True)
class Accepted:
    """A sample that is stored; `duplicate` when the same client id brought the same body before."""

    id: str
    state: str
    duplicate: bool = False
    note: str | None = None


@dataclass(frozen=True)
class Refused:
    """An item that was not stored, and why; `code` is stable."""

    code: str
    detail: str


@dataclass
class _Rows:
    """What one transaction will insert."""

    samples: dict[str, Sample] = field(default_factory=dict)
    payloads: list[dict[str, object]] = field(default_factory=list)
    revisions: list[Revision] = field(default_factory=list)


class Intake:
    """The queue's front door."""

    def __init__(self, database: Database, queue_limit: int = 1_000_000) -> None:
        self._database = database
        self._queue_limit = queue_limit

    def put(self, model: Model, items: Sequence[NewSample], actor: str) -> list[Accepted | Refused]:
        """Store the items in one transaction, answers in their order. `Overloaded` when the queue is full."""
        ids = [str(uuid7()) for _ in items]  # made before the transaction, so that a repeated one finds its own rows
        try:
            return self._put(model, items, ids, actor)
        except IntegrityError:
            return self._put(model, items, ids, actor)  # another request brought the same client id or label just now

    @writes
    def _put(
        self, session: Session, model: Model, items: Sequence[NewSample], ids: Sequence[str], actor: str
    ) -> list[Accepted | Refused]:
        self._refuse_when_full(session, model, len(items))
        at = now(session)
        labels = LabelBook(session, model, {item.label for item in items}, at)
        stored = {
            sample.client_id: sample
            for some in chunks({item.client_id for item in items if item.client_id is not None})
            for sample in session.scalars(select(Sample).where(Sample.model_id == model.id, Sample.client_id.in_(some)))
        }
        mine = {
            sample.id: sample
            for some in chunks(ids)
            for sample in session.scalars(select(Sample).where(Sample.id.in_(some)))
        }
        digests = [hashlib.sha256(item.content).hexdigest() for item in items]
        same = self._same_content(session, model, digests)
        if _contradicted(items, digests, same, labels):
            lock_model(session, model.id)  # a commit may be moving the samples that are to be taken out
            same = self._same_content(session, model, digests)
        rows = _Rows()
        answers: list[Accepted | Refused] = []
        named: dict[str, Label] = {}
        for item, sample_id, digest in zip(items, ids, digests, strict=True):
            if sample_id in mine:
                answers.append(Accepted(sample_id, mine[sample_id].state))
                continue
            request = _request_digest(digest, item)
            earlier = stored.get(item.client_id)
            if earlier is not None:
                answers.append(_repeated(earlier, request, item))
                continue
            try:
                label = labels.entry(item.label)
            except InvalidItem as refusal:
                answers.append(Refused(refusal.code, refusal.detail))
                continue
            sample = Sample(
                id=sample_id,
                model_id=model.id,
                client_id=item.client_id,
                request_digest=request,
                content_digest=digest,
                nbytes=len(item.content),
                memory_rank=hmac.new(model.holdout_key, b"memory:" + digest.encode(), "sha256").hexdigest()[:32],
                label_id=label.id,
                source=item.source,
                why=item.why,
                prediction_id=item.prediction_id,
                state=SampleState.QUEUED,
                side=LedgerRole.TEST if item.split == "test" else None,
                in_line=False,
                version_id=None,
                reason=None,
                created_at=at,
                updated_at=at,
            )
            state = RevisionState.WAITING if label.state == LabelState.PROPOSED else RevisionState.QUEUED
            disputed = self._dispute(session, sample, same.get(digest, []), labels, rows, actor, at)
            if disputed:
                sample.state, sample.reason, state = SampleState.QUARANTINED, disputed, RevisionState.QUARANTINED
            rows.samples[sample_id] = sample
            rows.payloads.append({"sample_id": sample_id, "content": item.content})
            rows.revisions.append(new_revision(sample, 1, RevisionAction.ADD, actor, state, at))
            same.setdefault(digest, []).append(sample)
            if item.client_id is not None:
                stored[item.client_id] = sample
            answers.append(Accepted(sample_id, sample.state))
            named[sample_id] = label
        self._insert(session, rows)
        labels.accept_proposals()
        notes = labels.notes()
        return [
            replace(answer, note=notes.get(named[answer.id].id))
            if isinstance(answer, Accepted) and answer.id in named
            else answer
            for answer in answers
        ]

    @writes
    def correct(self, session: Session, model: Model, sample_id: str, label: str, actor: str) -> Sample:
        """Give the sample another label: the next revision. A held-out sample keeps its side and is scored anew."""
        lock_model(session, model.id)
        at = now(session)
        sample = _sample(session, model, sample_id)
        if sample.state == SampleState.WITHDRAWN:
            raise Conflict(f"Sample {sample_id} is withdrawn. Post its input again with the right label.")
        labels = LabelBook(session, model, {label}, at)
        entry = labels.entry(label)
        if entry.id == sample.label_id:
            return sample
        newest = newest_revision(session, sample_id)
        state = RevisionState.WAITING if entry.state == LabelState.PROPOSED else RevisionState.QUEUED
        action = RevisionAction.REPLACE
        if newest.state in (RevisionState.QUEUED, RevisionState.WAITING, RevisionState.QUARANTINED):
            if newest.action == RevisionAction.ADD:
                action = RevisionAction.ADD
            newest.state = RevisionState.SUPERSEDED
        sample.label_id = entry.id
        sample.updated_at = at
        revision = new_revision(sample, newest.number + 1, action, actor, state, at)
        session.add(revision)
        if sample.state == SampleState.HELD_OUT and state == RevisionState.QUEUED:
            # Nothing is to be learned: the judge only reads the new label from now on.
            revision.state = RevisionState.LEARNED
            session.flush()
            live = last_promotion(session, model.id).version_id
            session.add(LedgerEntry(version_id=live, revision_id=revision.id, role=sample.side or LedgerRole.HOLDOUT))
        elif sample.state != SampleState.CLAIMED:
            sample.state, sample.reason = SampleState.QUEUED, None
        session.flush()
        labels.accept_proposals()
        detail = {"sample": sample_id, "label": label}
        record(session, model_id=model.id, kind="sample.corrected", actor=actor, reason="", at=at, detail=detail)
        return sample

    @writes
    def withdraw(self, session: Session, model: Model, sample_id: str, actor: str) -> Sample:
        """Take the sample back. It leaves rehearsal and holdout at once, and its input is erased as soon as no
        version that learned it is live."""
        lock_model(session, model.id)
        sample = _sample(session, model, sample_id)
        if sample.state == SampleState.WITHDRAWN:
            return sample
        at = now(session)
        withdraw_sample(session, sample, "withdrawn", actor, at)
        session.flush()
        detail = {"sample": sample_id}
        record(session, model_id=model.id, kind="sample.withdrawn", actor=actor, reason="", at=at, detail=detail)
        return sample

    @reads
    def queued(self, session: Session, model_id: int) -> int:
        """How many revisions wait."""
        return session.execute(_waiting_count(model_id)).scalar_one()

    def _refuse_when_full(self, session: Session, model: Model, more: int) -> None:
        waiting = session.execute(_waiting_count(model.id)).scalar_one()
        excess = waiting + more - self._queue_limit
        if excess <= 0:
            return
        # An honest estimate: what the last updates took, over the time they took.
        recent = session.execute(
            select(Update.revisions, Update.started_at, Update.finished_at)
            .where(Update.model_id == model.id, Update.state == UpdateState.COMMITTED)
            .order_by(Update.id.desc())
            .limit(10)
        ).all()
        seconds = sum(((end or start) - start).total_seconds() for _, start, end in recent)
        rate = sum(count for count, _, _ in recent) / seconds if seconds > 0 else 1.0
        raise Overloaded(f"The queue of {model.name!r}", max(1, min(3600, round(excess / max(rate, 0.1)))))

    def _same_content(self, session: Session, model: Model, digests: Sequence[str]) -> dict[str, list[Sample]]:
        found: dict[str, list[Sample]] = {}
        for some in chunks(set(digests)):
            query = select(Sample).where(
                Sample.model_id == model.id, Sample.content_digest.in_(some), Sample.state != SampleState.WITHDRAWN
            )
            query = query.execution_options(populate_existing=True)
            for sample in session.scalars(query):
                found.setdefault(sample.content_digest, []).append(sample)
        return found

    def _dispute(
        self,
        session: Session,
        sample: Sample,
        same: Sequence[Sample],
        labels: LabelBook,
        rows: _Rows,
        actor: str,
        at: datetime,
    ) -> str | None:
        """Compare with samples of the same bytes and another label; the reason, when both go to review.

        From the same source the new label is a correction, and the old sample is withdrawn for it.
        """
        reason = None
        for other in same:
            if other.label_id == sample.label_id or other.state == SampleState.WITHDRAWN:
                continue
            if other not in session:  # it came with this very request
                self._insert(session, rows)
                other = session.get_one(Sample, other.id)  # noqa: PLW2901
            if other.source == sample.source:
                withdraw_sample(session, other, f"corrected by sample {sample.id}", actor, at, erase=False)
            else:
                mine, theirs = labels.name(sample.label_id), labels.name(other.label_id)
                reason = f"{other.source!r} labelled the same input {theirs!r}, {sample.source!r} says {mine!r}: review"
                quarantine_sample(session, other, reason, actor, at)
        return reason

    def _insert(self, session: Session, rows: _Rows) -> None:
        if not rows.samples:
            return
        session.execute(insert(Sample), [_columns(sample) for sample in rows.samples.values()])
        session.execute(insert(Payload), rows.payloads)
        session.execute(insert(Revision), [_columns(revision) for revision in rows.revisions])
        rows.samples, rows.payloads, rows.revisions = {}, [], []


def _contradicted(
    items: Sequence[NewSample], digests: Sequence[str], same: Mapping[str, Sequence[Sample]], labels: LabelBook
) -> bool:
    """Whether a stored sample of the same bytes has another label than an item brings."""
    return any(
        labels.id_of(item.label) != other.label_id
        for item, digest in zip(items, digests, strict=True)
        for other in same.get(digest, [])
    )


def _columns(row: Sample | Revision) -> dict[str, object]:
    return {name: value for name, value in vars(row).items() if not name.startswith("_")}


def _waiting_count(model_id: int) -> Select[int]:
    queued = Revision.state == literal(RevisionState.QUEUED)
    return select(func.count()).select_from(Revision).where(Revision.model_id == model_id, queued)


def _request_digest(content_digest: str, item: NewSample) -> str:
    words = "\0".join((content_digest, item.label, item.source, item.why or "", *([item.split] if item.split else [])))
    return hashlib.sha256(words.encode()).hexdigest()


def _repeated(earlier: Sample, request: str, item: NewSample) -> Accepted | Refused:
    if earlier.request_digest == request:
        return Accepted(earlier.id, earlier.state, duplicate=True)
    return Refused(
        "id_conflict",
        f"Id {item.client_id!r} was used before for another body. Choose a new id, or PATCH sample {earlier.id} "
        "to correct its label.",
    )


def _sample(session: Session, model: Model, sample_id: str) -> Sample:
    sample = session.scalar(select(Sample).where(Sample.id == sample_id, Sample.model_id == model.id))
    if sample is None:
        raise UnknownSample(sample_id)
    return sample
