"""What a move of the pointer means for samples: each one's state follows from the line.

A step inside the transaction of a move; its caller holds the model's lock. A revision counts as learned exactly when
the ledger has it in a version of the line (the live version and its ancestors), so only the difference between the old
line and the new one is looked at.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from app.storage.promotions import chunks
from app.storage.states import LedgerRole, RevisionAction, RevisionState, SampleState
from app.storage.tables import LedgerEntry, Revision, Sample


class Fate(StrEnum):
    """What becomes of samples that only versions after a rollback's target had learned."""

    QUARANTINE = "quarantine"
    REQUEUE = "requeue"
    KEEP = "keep"


@dataclass(frozen=True)
class _States:
    revision: RevisionState
    sample: SampleState


_FATES = {
    Fate.QUARANTINE: _States(RevisionState.QUARANTINED, SampleState.QUARANTINED),
    Fate.REQUEUE: _States(RevisionState.QUEUED, SampleState.QUEUED),
    Fate.KEEP: _States(RevisionState.ABANDONED, SampleState.LEARNED),
}


def settle_samples(
    session: Session, *, old: Collection[str], new: Collection[str], fate: Fate, why: str, at: datetime
) -> dict[str, int]:
    """Make revisions and samples agree with the new line after the pointer moved from `old` to `new`.

    Both are version ids of a whole line. The answer counts samples by what became of them.
    """
    gone, back = set(old) - set(new), set(new) - set(old)
    counts: dict[str, int] = defaultdict(int)
    if not back:
        # Going back along the line, as nearly all moves do: what has one revision meets its fate in sets.
        for state, count in _settle_simple(session, gone, fate, why, at).items():
            counts[state] += count
    sample_ids: set[str] = set()
    for ids in chunks(gone | back):
        touched = select(Revision.sample_id).join(LedgerEntry, LedgerEntry.revision_id == Revision.id)
        touched = touched.where(LedgerEntry.version_id.in_(ids))
        if not back:
            touched = touched.where(_has_later(Revision.sample_id))
        sample_ids.update(session.scalars(touched))
    line = set(new)
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


def _settle_simple(session: Session, gone: Collection[str], fate: Fate, why: str, at: datetime) -> dict[str, int]:
    """The fate of samples with a single revision, learned or held out by the versions that are `gone`."""
    states, reason = _FATES[fate], _reason(fate, why)
    changed = 0
    for ids in chunks(gone):
        theirs = select(LedgerEntry.revision_id).where(LedgerEntry.version_id.in_(ids))
        alone = and_(Revision.id.in_(theirs), Revision.state == RevisionState.LEARNED, ~_has_later(Revision.sample_id))
        of_samples = Sample.id.in_(select(Revision.sample_id).where(alone))
        values: dict[str, Any] = {"state": states.sample, "in_line": False, "reason": reason}
        if fate == Fate.REQUEUE:
            values["version_id"] = None
        moved = session.execute(
            update(Sample).where(of_samples, Sample.state != states.sample).values(**values, updated_at=at)
        )
        changed += int(getattr(moved, "rowcount", 0))
        session.execute(update(Sample).where(of_samples).values(**values))
        session.execute(update(Revision).where(alone).values(state=states.revision))
    return {states.sample: changed} if changed else {}


def _has_later(sample_id: ColumnElement[str] | InstrumentedAttribute[str]) -> ColumnElement[bool]:
    later = aliased(Revision)
    return exists().where(later.sample_id == sample_id, later.number > 1)


def _reason(fate: Fate, why: str) -> str | None:
    if fate == Fate.REQUEUE:
        return None
    if fate == Fate.KEEP:
        return f"learned only in a version that was rolled back, and kept so: {why}"
    return f"rolled back: {why}"


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
            learned = taught[newest.id].role == LedgerRole.LEARN
            sample.state = SampleState.LEARNED if learned else SampleState.HELD_OUT
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
    newest.state, sample.state, sample.reason = _FATES[fate].revision, _FATES[fate].sample, _reason(fate, why)
    if fate == Fate.REQUEUE:
        sample.version_id = None
