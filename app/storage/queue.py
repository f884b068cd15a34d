"""The worker's side of the queue: claim, heartbeat, commit, fail, expire (T1 to T4 and T6).

A durable first-in-first-out queue of label revisions with leases. An update's id is the fencing token: every
transition names the state it expects, so a worker that lost its lease can change nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.orm import Session

from app.errors import Conflict, LeaseLost
from app.storage.claims import Claim, ClaimedRevision, Outcome, describe, newest_only
from app.storage.commits import commit_update
from app.storage.database import Database, literal, now, reads, writes
from app.storage.families import lock_family
from app.storage.killpoint import KillPoint
from app.storage.leases import end_update, expire_updates, rows_changed
from app.storage.promotions import chunks, last_promotion, lock_model, release_claims
from app.storage.states import Lane, RevisionAction, RevisionState, SampleState, UpdateKind, UpdateState, Verdict
from app.storage.tables import Model, Revision, Sample, Update, Version
from app.storage.triggers import Due, due_updates

PATIENCE = 8  # every so many claims the order is reversed, so that what failed before is not starved


class SampleQueue:
    """Claims of revisions with leases and fencing."""

    def __init__(self, database: Database, kill_point: KillPoint | None = None) -> None:
        self._database = database
        self._kill_point = kill_point or KillPoint()

    @reads
    def due(self, session: Session) -> list[Due]:
        """Updates that should start now, and that no update with a valid lease keeps from it."""
        return due_updates(session, now(session))

    @writes
    def claim(
        self, session: Session, model_id: int, *, worker: str, lease_seconds: float, limit: int, lane: Lane = Lane.SLOW
    ) -> Claim | None:
        """T1: begin an update over the next revisions; None when one runs or there is nothing to claim."""
        model = lock_model(session, model_id)
        at = now(session)
        expire_updates(session, at, model_id)
        if model.pinned or _runs(session, model_id, lane):
            return None
        revisions = self._next(session, model, limit, at)
        model.run_requested = False
        revisions = newest_only(session, revisions)
        if not revisions:
            return None
        begun = _begun(session, model_id, UpdateKind.LEARN, lane, worker, len(revisions), at, lease_seconds)
        for revision in revisions:
            revision.state, revision.update_id = RevisionState.CLAIMED, begun.id
        for ids in chunks([revision.sample_id for revision in revisions]):
            session.execute(
                update(Sample)
                .where(Sample.id.in_(ids), Sample.state == SampleState.QUEUED)
                .values(state=SampleState.CLAIMED, updated_at=at)
            )
        session.flush()
        return _claim(session, model, begun, describe(session, model_id, revisions))

    @writes
    def begin(self, session: Session, model_id: int, *, worker: str, lease_seconds: float) -> Claim | None:
        """T1 of a slow update that claims nothing, of the model and of all who share its backbone.

        None when one of them is pinned, or a slow update of one runs.
        """
        family = lock_family(session, model_id)
        at = now(session)
        for model in family:
            expire_updates(session, at, model.id)
        if any(model.pinned or _runs(session, model.id, Lane.SLOW) for model in family):
            return None
        claims = []
        for model in family:
            model.slow_requested = False
            begun = _begun(session, model.id, UpdateKind.REFINE, Lane.SLOW, worker, 0, at, lease_seconds)
            claims.append(_claim(session, model, begun, ()))
        session.flush()
        return replace(claims[0], relatives=tuple(claims[1:]))

    @writes
    def hold(self, session: Session, claim: Claim, lease_seconds: float) -> int | None:
        """Keep the fast lane of the claim's model still; the answer lets it go by `release`. None while it works."""
        lock_model(session, claim.model.id)
        at = now(session)
        expire_updates(session, at, claim.model.id)
        if _runs(session, claim.model.id, Lane.FAST):
            return None
        held = _begun(session, claim.model.id, UpdateKind.HOLD, Lane.FAST, claim.worker, 0, at, lease_seconds)
        return held.id

    @writes
    def heartbeat(self, session: Session, update_id: int, lease_seconds: float) -> None:
        """T2: extend the lease; `LeaseLost` when the update is no longer running."""
        until = now(session) + timedelta(seconds=lease_seconds)
        changed = session.execute(
            update(Update)
            .where(Update.id == update_id, Update.state == literal(UpdateState.RUNNING))
            .values(lease_until=until)
        )
        if rows_changed(changed) != 1:
            raise LeaseLost(update_id)

    @writes
    def commit(self, session: Session, claim: Claim, outcome: Outcome) -> Version:
        """T3: record the version, the ledger, the verdict and, if promoted, the promotion, all or nothing.

        The clock plays no part: a lapsed lease that nobody took over may still commit. Repeating a commit whose
        answer was lost finds its own version.
        """
        lock_model(session, claim.model.id)
        return commit_update(session, claim, outcome, now(session), self._kill_point)

    @writes
    def commit_all(self, session: Session, made: Sequence[tuple[Claim, Outcome]]) -> list[Version]:
        """T3 for a family's models: all of it or nothing, in the order given, so that a base stands before its deltas.

        Whoever has joined the family since is not among them; `Conflict` then, where they would leave it behind.
        """
        claims = [claim for claim, _ in made]
        family = lock_family(session, claims[0].model.id)
        joined = [model.name for model in family if model.id not in {claim.model.id for claim in claims}]
        if joined and any(outcome.verdict == Verdict.PROMOTED for _, outcome in made):
            raise Conflict(
                f"{', '.join(map(repr, joined))} joined the family while it learned, on the backbone that was to be "
                "replaced. Nothing of the update was published; the next one learns from all."
            )
        at = now(session)
        return [commit_update(session, claim, outcome, at, self._kill_point) for claim, outcome in made]

    @writes
    def fail(self, session: Session, update_id: int, error: str) -> None:
        """T4: the update went wrong; its samples go back with back-off, and after five times aside."""
        end_update(session, update_id, UpdateState.FAILED, error, now(session))

    @writes
    def release(self, session: Session, update_id: int, why: str) -> None:
        """The worker stops by order: the samples go back at once, with no attempt counted.

        A slow update that claimed nothing is asked for again: nobody else would, had it been begun by hand.
        """
        at = now(session)
        found = session.execute(select(Update.model_id, Update.kind).where(Update.id == update_id)).one_or_none()
        if found is None:
            return
        model = lock_model(session, found.model_id)
        ended = session.execute(
            update(Update)
            .where(Update.id == update_id, Update.state == literal(UpdateState.RUNNING))
            .values(state=UpdateState.CANCELLED, finished_at=at, error=why)
        )
        if rows_changed(ended) == 1:
            model.slow_requested = model.slow_requested or found.kind == UpdateKind.REFINE
            release_claims(session, [update_id], at=at)

    @writes
    def expire(self, session: Session) -> int:
        """T6: end updates whose lease lapsed, so that states are right with no worker alive; how many."""
        return expire_updates(session, now(session))

    def _next(self, session: Session, model: Model, limit: int, at: datetime) -> list[Revision]:
        """The next revisions that were tried equally often; fewer the more often they were in a crash.

        Removals that have no new label for company go alone, not again with what was inconclusive: nothing may hold
        them up, and what was judged already waits for new evidence.
        """
        begun = session.scalar(select(func.count()).select_from(Update).where(Update.model_id == model.id)) or 0
        patient = begun % PATIENCE == PATIENCE - 1
        order = (Revision.attempts.desc() if patient else Revision.attempts, Revision.id)
        ready = (
            select(Revision)
            .where(
                Revision.model_id == model.id,
                Revision.state == literal(RevisionState.QUEUED),
                or_(Revision.not_before.is_(None), Revision.not_before <= at),
            )
            .order_by(*order)
        )
        removals = ready.where(Revision.action == RevisionAction.REMOVE)
        labels = ready.where(Revision.action != RevisionAction.REMOVE, Revision.judgements == 0)
        if not model.run_requested and _any(session, removals) and not _any(session, labels):
            ready = removals
        first = session.scalars(ready.limit(1)).one_or_none()
        if first is None:
            return []
        alike = ready.where(Revision.attempts == first.attempts).limit(ceil(limit / 2**first.attempts))
        return list(session.scalars(alike.with_for_update(skip_locked=True)))


def _runs(session: Session, model_id: int, lane: Lane) -> bool:
    running = select(Update.id).where(
        Update.model_id == model_id, Update.lane == lane, Update.state == literal(UpdateState.RUNNING)
    )
    return session.scalar(running) is not None


def _begun(
    session: Session,
    model_id: int,
    kind: UpdateKind,
    lane: Lane,
    worker: str,
    revisions: int,
    at: datetime,
    lease_seconds: float,
) -> Update:
    last = last_promotion(session, model_id)
    begun = Update(
        model_id=model_id,
        kind=kind,
        lane=lane,
        state=UpdateState.RUNNING,
        worker=worker,
        parent_id=last.version_id,
        epoch=last.epoch,
        revisions=revisions,
        lease_until=at + timedelta(seconds=lease_seconds),
        started_at=at,
    )
    session.add(begun)
    session.flush()
    return begun


def _claim(session: Session, model: Model, begun: Update, revisions: tuple[ClaimedRevision, ...]) -> Claim:
    parent = session.get_one(Version, begun.parent_id)
    return Claim(
        begun.id, model, parent, begun.epoch, revisions, begun.worker, Lane(begun.lane), UpdateKind(begun.kind)
    )


def _any(session: Session, revisions: Select[Revision]) -> bool:
    return session.scalar(revisions.limit(1)) is not None
