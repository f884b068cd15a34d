"""How the one pointer moves: promotions are appended, and each sample's state follows from the line.

Steps inside a transaction that the registry and the queue share; every caller holds the model's lock first,
then touches updates, then samples. A revision counts as learned exactly when the ledger has it in a version of
the line (the live version and its ancestors), so a move of the pointer only has to look at the difference.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import select, update
from sqlalchemy.orm import Session, aliased

from app.errors import UnknownModel
from app.storage.database import literal
from app.storage.tables import (
    Assignment,
    AssignmentRole,
    Event,
    LedgerEntry,
    LedgerRole,
    Model,
    Promotion,
    Revision,
    RevisionAction,
    RevisionState,
    Sample,
    SampleState,
    Update,
    UpdateState,
    Version,
)

T = TypeVar("T")


class Fate(StrEnum):
    """What becomes of samples that only versions after a rollback's target had learned."""

    QUARANTINE = "quarantine"
    REQUEUE = "requeue"
    KEEP = "keep"


def chunks(items: Iterable[T], size: int = 500) -> Iterable[list[T]]:
    """Slices short enough for a statement's bound parameters."""
    whole = list(items)
    return (whole[start : start + size] for start in range(0, len(whole), size))


def lock_model(session: Session, model_id: int) -> Model:
    """Take the line's lock. `FOR NO KEY UPDATE`: a label being posted meanwhile is not held up."""
    model = session.scalar(
        select(Model)
        .where(Model.id == model_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    if model is None:
        raise UnknownModel(str(model_id))
    return model


def last_promotion(session: Session, model_id: int) -> Promotion:
    """The row that says what is live."""
    return session.scalars(
        select(Promotion).where(Promotion.model_id == model_id).order_by(Promotion.epoch.desc()).limit(1)
    ).one()


def ancestry(session: Session, version_id: str) -> list[str]:
    """The version and its ancestors, newest first."""
    start = (
        select(Version.id, Version.parent_id, Version.number)
        .where(Version.id == version_id)
        .cte("line", recursive=True)
    )
    parent = aliased(Version)
    line = start.union_all(select(parent.id, parent.parent_id, parent.number).where(parent.id == start.c.parent_id))
    return list(session.scalars(select(line.c.id).order_by(line.c.number.desc())))


def append_promotion(
    session: Session,
    *,
    model_id: int,
    epoch: int,
    version_id: str,
    falls_back_to: str | None,
    actor: str,
    reason: str,
    at: datetime,
) -> None:
    """Move the pointer: the promotion's row and the `live` assignment, always together."""
    session.add(
        Promotion(
            model_id=model_id,
            epoch=epoch,
            version_id=version_id,
            falls_back_to=falls_back_to,
            actor=actor,
            reason=reason,
            at=at,
        )
    )
    session.merge(
        Assignment(model_id=model_id, role=AssignmentRole.LIVE, version_id=version_id, share=1.0, epoch=epoch)
    )


def record(
    session: Session,
    *,
    model_id: int | None,
    kind: str,
    actor: str,
    reason: str,
    at: datetime,
    detail: dict[str, Any] | None = None,
) -> None:
    """Append one row to the audit log."""
    session.add(Event(model_id=model_id, kind=kind, actor=actor, reason=reason, detail=detail or {}, at=at))


def release_claims(
    session: Session, update_ids: Collection[int], *, at: datetime, error: str | None = None
) -> Sequence[Revision]:
    """Put the claimed revisions of these updates back into the queue, no attempt counted; the rows are the answer."""
    revisions: list[Revision] = []
    for ids in chunks(update_ids):
        revisions += session.scalars(
            select(Revision).where(Revision.update_id.in_(ids), Revision.state == literal(RevisionState.CLAIMED))
        )
    for revision in revisions:
        revision.state = RevisionState.QUEUED
        revision.update_id = None
        if error is not None:
            revision.last_error = error
    for sample_ids in chunks([revision.sample_id for revision in revisions]):
        session.execute(
            update(Sample)
            .where(Sample.id.in_(sample_ids), Sample.state == SampleState.CLAIMED)
            .values(state=SampleState.QUEUED, updated_at=at)
        )
    session.flush()
    return revisions


def cancel_running(session: Session, model_id: int, *, why: str, at: datetime) -> None:
    """End the model's running updates: their samples go back, and their workers publish nothing any more."""
    running = list(
        session.scalars(select(Update.id).where(Update.model_id == model_id, Update.state == UpdateState.RUNNING))
    )
    for update_id in running:
        session.execute(
            update(Update)
            .where(Update.id == update_id, Update.state == UpdateState.RUNNING)
            .values(state=UpdateState.CANCELLED, finished_at=at, error=why)
        )
    release_claims(session, running, at=at)


def settle_samples(
    session: Session, *, old: Collection[str], new: Collection[str], fate: Fate, why: str, at: datetime
) -> dict[str, int]:
    """Make revisions and samples agree with the new line after the pointer moved from `old` to `new`.

    Both are version ids of a whole line. The answer counts samples by what became of them.
    """
    moved_versions = set(old) ^ set(new)
    sample_ids: set[str] = set()
    for ids in chunks(moved_versions):
        sample_ids.update(
            session.scalars(
                select(Revision.sample_id)
                .join(LedgerEntry, LedgerEntry.revision_id == Revision.id)
                .where(LedgerEntry.version_id.in_(ids))
            )
        )
    line = set(new)
    counts: dict[str, int] = defaultdict(int)
    for ids in chunks(sorted(sample_ids)):
        samples = {sample.id: sample for sample in session.scalars(select(Sample).where(Sample.id.in_(ids)))}
        revisions: dict[str, list[Revision]] = defaultdict(list)
        for revision in session.scalars(
            select(Revision).where(Revision.sample_id.in_(ids)).order_by(Revision.sample_id, Revision.number)
        ):
            revisions[revision.sample_id].append(revision)
        taught: dict[int, LedgerEntry] = {}
        for entry in session.scalars(
            select(LedgerEntry)
            .join(Revision, Revision.id == LedgerEntry.revision_id)
            .where(Revision.sample_id.in_(ids))
        ):
            if entry.version_id in line:
                taught[entry.revision_id] = entry
        for sample_id, sample in samples.items():
            before = sample.state
            _settle(sample, revisions[sample_id], taught, fate, why)
            if sample.state != before:
                sample.updated_at = at
                counts[sample.state] += 1
    session.flush()
    return dict(counts)


def _settle(
    sample: Sample, revisions: Sequence[Revision], taught: dict[int, LedgerEntry], fate: Fate, why: str
) -> None:
    """Decide one sample anew from its revisions and from which of them the line holds."""
    newest = revisions[-1]
    held = [revision for revision in revisions if revision.id in taught]
    for revision in held:
        revision.state = RevisionState.LEARNED
        revision.update_id = None
    for revision in revisions[:-1]:
        if revision.id not in taught and revision.state in (RevisionState.LEARNED, RevisionState.ABANDONED):
            revision.state = RevisionState.SUPERSEDED
    removed = newest.action == RevisionAction.REMOVE
    if held:
        entry = taught[held[-1].id]
        sample.version_id = entry.version_id
        sample.side = entry.role
    sample.in_line = bool(held)
    if newest.id in taught:
        sample.in_line = not removed
        if not removed:  # one taken out keeps the state and the reason its owner gave it
            held_out = taught[newest.id].role == LedgerRole.HOLDOUT
            sample.state = SampleState.HELD_OUT if held_out else SampleState.LEARNED
            sample.reason = None
        return
    if held and newest.state in (RevisionState.LEARNED, RevisionState.ABANDONED, RevisionState.SUPERSEDED):
        # A correction or withdrawal is a fact: the line that holds the older label has to take it again.
        newest.state = RevisionState.QUEUED
        if not removed:
            sample.state = SampleState.QUEUED
        return
    if newest.state not in (RevisionState.LEARNED, RevisionState.ABANDONED):
        return  # it waits, or was set aside, for reasons of its own
    if removed:
        newest.state = RevisionState.SUPERSEDED  # nothing of it is in the line: there is nothing to remove
        return
    if fate == Fate.REQUEUE:
        newest.state, sample.state, sample.version_id = RevisionState.QUEUED, SampleState.QUEUED, None
        sample.reason = None
    elif fate == Fate.KEEP:
        newest.state, sample.state = RevisionState.ABANDONED, SampleState.LEARNED
        sample.reason = f"learned only in a version that was rolled back, and kept so: {why}"
    else:
        newest.state, sample.state = RevisionState.QUARANTINED, SampleState.QUARANTINED
        sample.reason = f"rolled back: {why}"
