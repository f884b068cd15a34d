"""How an update ends without a version: its lease lapses, or it fails (T4 and T6).

Steps inside a transaction; each locks the model, then changes the update, then its samples.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.storage.database import literal
from app.storage.promotions import lock_model, record, release_claims
from app.storage.states import RevisionAction, RevisionState, SampleState, UpdateState
from app.storage.tables import Sample, Update

ATTEMPTS = 5  # crashes of updates that held a revision, before it is set aside


def rows_changed(result: Any) -> int:
    return int(result.rowcount)


def expire_updates(session: Session, at: datetime, model_id: int | None = None) -> int:
    lapsed = select(Update).where(Update.state == literal(UpdateState.RUNNING), Update.lease_until < at)
    if model_id is not None:
        lapsed = lapsed.where(Update.model_id == model_id)
    count = 0
    for row in session.scalars(lapsed.order_by(Update.model_id)).all():
        count += end_update(
            session, row.id, UpdateState.EXPIRED, "its lease lapsed: the worker died or was held up", at
        )
    return count


def end_update(session: Session, update_id: int, state: UpdateState, error: str, at: datetime) -> bool:
    model_id = session.scalar(select(Update.model_id).where(Update.id == update_id))
    if model_id is None:
        return False
    lock_model(session, model_id)
    still = [Update.id == update_id, Update.state == literal(UpdateState.RUNNING)]
    if state == UpdateState.EXPIRED:
        still.append(Update.lease_until < at)  # a heartbeat may have come while we waited for the lock
    if (
        rows_changed(session.execute(update(Update).where(*still).values(state=state, finished_at=at, error=error)))
        != 1
    ):
        return False
    for revision in release_claims(session, [update_id], at=at, error=error):
        revision.attempts += 1
        if revision.attempts >= ATTEMPTS and revision.action != RevisionAction.REMOVE:
            revision.state = RevisionState.QUARANTINED
            sample = session.get_one(Sample, revision.sample_id)
            if sample.state == SampleState.QUEUED:
                sample.state, sample.reason = (
                    SampleState.QUARANTINED,
                    f"{revision.attempts} updates failed with it: {error}",
                )
        else:
            # The first retry is at once (a worker that died is no fault of the sample), then 5 s, 15 s, 35 s.
            revision.not_before = at + timedelta(seconds=min(5 * (2 ** (revision.attempts - 1) - 1), 3600))
    record(
        session,
        model_id=model_id,
        kind=f"update.{state.value}",
        actor="worker",
        reason=error,
        at=at,
        detail={"update": update_id},
    )
    session.flush()
    return True
