"""Which updates should start now: labels that wait, a schedule that is over, a request by hand.

A step inside the queue's transaction. Reads only; claiming decides whether an update really begins.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.ingredients import Schedule
from app.recipe import Recipe
from app.storage.database import literal
from app.storage.states import Lane, RevisionState, SampleState, UpdateKind, UpdateState, Verdict
from app.storage.tables import Model, Revision, Sample, Update, Version

FIRST_RETRY_SECONDS = 30.0
LAST_RETRY_SECONDS = 3600.0


@dataclass(frozen=True)
class Due:
    """An update that should start."""

    model_id: int
    lane: Lane
    kind: UpdateKind


def claiming_lane(recipe: Recipe) -> Lane:
    """Which lane claims labels: the fast one when the head is solved, else the only one there is."""
    return Lane.FAST if recipe.closed_form else Lane.SLOW


def due_updates(session: Session, at: datetime) -> list[Due]:
    waiting = _waiting(session, at)
    running = select(Update.model_id, Update.lane).where(
        Update.state == literal(UpdateState.RUNNING), Update.lease_until >= at
    )
    busy = {(model_id, lane) for model_id, lane in session.execute(running)}
    found: list[Due] = []
    every = session.scalars(select(Model).order_by(Model.id)).all()
    for model in every:
        if model.pinned:
            continue
        recipe = Recipe.model_validate(model.recipe)
        lane = claiming_lane(recipe)
        count, oldest = waiting.get(model.id, (0, at))
        enough = count >= recipe.trigger.samples or (at - oldest).total_seconds() >= recipe.trigger.seconds
        fires = count > 0 and (recipe.closed_form or enough)
        if (model.run_requested or (fires and not model.paused)) and (model.id, lane) not in busy:
            found.append(Due(model.id, lane, UpdateKind.LEARN))
        family = _family(model, every)
        still = all((one.id, Lane.SLOW) not in busy and not one.pinned for one in family)
        if still and _slow_fires(session, model, family, recipe.schedule, at):
            found.append(Due(model.id, Lane.SLOW, UpdateKind.REFINE))
    return found


def _family(model: Model, every: Sequence[Model]) -> list[Model]:
    """The model and all who share its backbone."""
    return [model] if model.family_id is None else [one for one in every if one.family_id == model.family_id]


def _waiting(session: Session, at: datetime) -> dict[int, tuple[int, datetime]]:
    """Per model, how many revisions wait that no update has judged yet, and since when."""
    rows = session.execute(
        select(Revision.model_id, func.count(), func.min(Revision.created_at))
        .where(
            Revision.state == literal(RevisionState.QUEUED),
            Revision.judgements == 0,
            or_(Revision.not_before.is_(None), Revision.not_before <= at),
        )
        .group_by(Revision.model_id)
    )
    return {model_id: (count, oldest) for model_id, count, oldest in rows}


def _slow_fires(session: Session, model: Model, family: Sequence[Model], schedule: Schedule, at: datetime) -> bool:
    """Whether the model's slow update is due, which is also that of all its family: a paused one keeps it waiting."""
    paused = any(one.paused for one in family)
    scheduled = not paused and (schedule.samples is not None or schedule.seconds is not None)
    ids = [one.id for one in family]
    if not (scheduled or model.slow_requested) or not _learned_anything(session, ids):
        return False
    refinements = select(Update).where(Update.model_id == model.id, Update.kind == UpdateKind.REFINE)
    last = session.scalars(
        refinements.where(Update.state == literal(UpdateState.COMMITTED)).order_by(Update.id.desc()).limit(1)
    ).one_or_none()
    since = last.id if last is not None else 0
    failed = session.scalars(
        refinements.where(Update.state.in_((UpdateState.FAILED, UpdateState.EXPIRED)), Update.id > since).order_by(
            Update.id
        )
    ).all()
    if model.slow_requested:
        return True
    if failed and failed[-1].finished_at is not None:
        wait = min(FIRST_RETRY_SECONDS * 2.0 ** min(len(failed) - 1, 16), LAST_RETRY_SECONDS)
        if at < failed[-1].finished_at + timedelta(seconds=wait):
            return False
    if schedule.samples is not None and _taught_since(session, ids, since) >= schedule.samples:
        return True
    begun = last.finished_at if last is not None and last.finished_at is not None else model.created_at
    return schedule.seconds is not None and (at - begun).total_seconds() >= schedule.seconds


def _learned_anything(session: Session, model_ids: Collection[int]) -> bool:
    learned = select(Sample.id).where(
        Sample.model_id.in_(model_ids), Sample.in_line.is_(True), Sample.state == SampleState.LEARNED
    )
    return session.scalar(learned.limit(1)) is not None


def _taught_since(session: Session, model_ids: Collection[int], update_id: int) -> int:
    """How many revisions promoted versions of these models took in after that update."""
    counted = (
        select(func.sum(Update.revisions))
        .join(Version, Version.update_id == Update.id)
        .where(Update.model_id.in_(model_ids), Update.id > update_id, Version.verdict == Verdict.PROMOTED)
    )
    return int(session.scalar(counted) or 0)
