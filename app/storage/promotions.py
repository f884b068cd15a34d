"""The one pointer and the line behind it: promotions are appended, claims let go, the audit log written.

Steps inside a transaction that the registry and the queue share; every caller holds the model's lock first,
then touches updates, then samples. A revision counts as learned exactly when the ledger has it in a version of
the line (the live version and its ancestors), so a move of the pointer only has to look at the difference.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import select, update
from sqlalchemy.orm import Session, aliased

from app.errors import UnknownModel
from app.storage.database import literal
from app.storage.states import AssignmentRole, RevisionState, SampleState, UpdateState
from app.storage.tables import Assignment, Event, Model, Promotion, Revision, Sample, Update, Version

T = TypeVar("T")


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
