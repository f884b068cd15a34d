"""A sample's next revision: how one is appended, and how a sample is taken out of what was learned.

Steps inside a transaction of intake, corrections and claims.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.storage.features import forget
from app.storage.states import LedgerRole, RevisionAction, RevisionState, SampleState
from app.storage.tables import Logits, Payload, Revision, Sample


def newest_revision(session: Session, sample_id: str) -> Revision:
    return session.scalars(
        select(Revision).where(Revision.sample_id == sample_id).order_by(Revision.number.desc()).limit(1)
    ).one()


def new_revision(
    sample: Sample, number: int, action: RevisionAction, actor: str, state: RevisionState, at: datetime
) -> Revision:
    return Revision(
        model_id=sample.model_id,
        sample_id=sample.id,
        number=number,
        action=action,
        label_id=sample.label_id,
        actor=actor,
        state=state,
        attempts=0,
        refusals=0,
        judgements=0,
        created_at=at,
    )


def _take_out(session: Session, sample: Sample, actor: str, at: datetime) -> bool:
    """Append the revision that takes the sample out of what was learned; False when nothing was."""
    revisions = session.scalars(select(Revision).where(Revision.sample_id == sample.id)).all()
    for revision in revisions:
        if revision.state in (RevisionState.QUEUED, RevisionState.WAITING, RevisionState.QUARANTINED):
            revision.state = RevisionState.SUPERSEDED
    claimed = any(revision.state == RevisionState.CLAIMED for revision in revisions)
    learned = sample.in_line and sample.side == LedgerRole.LEARN
    state = RevisionState.QUEUED if claimed or learned else RevisionState.SUPERSEDED
    number = max(revision.number for revision in revisions) + 1
    session.add(new_revision(sample, number, RevisionAction.REMOVE, actor, state, at))
    return claimed or learned


def withdraw_sample(
    session: Session, sample: Sample, reason: str, actor: str, at: datetime, *, erase: bool = True
) -> None:
    pending = _take_out(session, sample, actor, at)
    sample.state, sample.reason, sample.updated_at = SampleState.WITHDRAWN, reason, at
    if not pending:
        sample.in_line = False
        if erase:
            erase_inputs(session, [sample.id])


def quarantine_sample(session: Session, sample: Sample, reason: str, actor: str, at: datetime) -> None:
    _take_out(session, sample, actor, at)
    sample.state, sample.reason, sample.updated_at = SampleState.QUARANTINED, reason, at


def erase_inputs(session: Session, sample_ids: Collection[str]) -> None:
    """Delete the samples' inputs and all that was computed from them."""
    session.execute(delete(Payload).where(Payload.sample_id.in_(sample_ids)))
    session.execute(delete(Logits).where(Logits.sample_id.in_(sample_ids)))
    forget(session, sample_ids)
