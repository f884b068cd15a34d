"""What a commit writes for one update (T3): version, ledger, verdict and, if promoted, the promotion.

A step inside the queue's transaction, which holds the model's lock.
"""

from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from app.errors import LeaseLost, StaleParent
from app.storage.claims import Claim, Outcome
from app.storage.database import literal
from app.storage.killpoint import KillPoint
from app.storage.leases import rows_changed
from app.storage.promotions import append_promotion, last_promotion, record
from app.storage.states import RevisionState, UpdateState, Verdict
from app.storage.tables import LedgerEntry, Model, Revision, Update, Version
from app.storage.verdicts import insert_version, judge_revisions


def commit_update(session: Session, claim: Claim, outcome: Outcome, at: datetime, kill_point: KillPoint) -> Version:
    """Record the outcome; LeaseLost or StaleParent when the update was overtaken. A repeat finds its own version."""
    model = session.get_one(Model, claim.model.id)
    finished = session.execute(
        update(Update)
        .where(
            Update.id == claim.update_id,
            Update.state == literal(UpdateState.RUNNING),
            Update.worker == claim.worker,
        )
        .values(state=UpdateState.COMMITTED, finished_at=at)
    )
    if rows_changed(finished) != 1:
        own = session.scalar(select(Version).where(Version.update_id == claim.update_id))
        if own is not None and own.id == outcome.version_id:
            return own
        raise LeaseLost(claim.update_id)
    last = last_promotion(session, model.id)
    if last.epoch != claim.epoch or last.version_id != claim.parent.id:
        raise StaleParent(claim.update_id, claim.epoch, last.epoch)
    version = insert_version(session, model, claim, outcome, at)
    kill_point("inside_commit")
    revisions = {
        revision.id: revision
        for revision in session.scalars(
            select(Revision).where(
                Revision.update_id == claim.update_id, Revision.state == literal(RevisionState.CLAIMED)
            )
        )
    }
    if revisions.keys() != {revision.id for revision in claim.revisions}:
        raise LeaseLost(claim.update_id)
    if revisions:
        session.execute(
            insert(LedgerEntry),
            [
                {"version_id": version.id, "revision_id": revision_id, "role": outcome.role(revision_id)}
                for revision_id in revisions
            ],
        )
    if outcome.verdict == Verdict.PROMOTED:
        append_promotion(
            session,
            model_id=model.id,
            epoch=last.epoch + 1,
            version_id=version.id,
            falls_back_to=last.version_id,
            actor="worker",
            reason=outcome.reason,
            at=at,
        )
    judge_revisions(session, list(revisions.values()), version, outcome, at)
    record(
        session,
        model_id=model.id,
        kind=f"version.{outcome.verdict.value}",
        actor="worker",
        reason=outcome.reason,
        at=at,
        detail={"version": version.number, "update": claim.update_id, "revisions": len(revisions)},
    )
    session.flush()
    return version
