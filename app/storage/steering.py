"""The moves that an admin makes by hand: promote, roll back, pin, pause, have an update run.

Called by the API. Knows the database; how a model's pointer moves is `moves`'s.
"""

from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.errors import Conflict, NothingToRollBackTo, Pinned
from app.storage.database import Database, now, writes
from app.storage.moves import Moved, move_live
from app.storage.promotions import cancel_running, last_promotion, lock_model, record
from app.storage.registry import model_named, version_numbered
from app.storage.settling import Fate
from app.storage.states import Lane, Verdict
from app.storage.tables import Model, Promotion, Version


@dataclass(frozen=True)
class _Tried:
    """A move whose commit may have been made."""

    epoch: int
    live_id: str
    previous_id: str
    samples: dict[str, int]


class Steering:
    """Each move in one transaction, with who made it and why."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @writes
    def promote(self, session: Session, name: str, number: int, *, force: bool, reason: str, actor: str) -> Moved:
        """Make a version live by hand. One the gate did not vouch for, or a pinned model, needs `force`."""
        model = lock_model(session, model_named(session, name).id)
        version = version_numbered(session, model, number)
        if model.pinned and not force:
            raise Pinned(name)
        vouched = version.verdict in (Verdict.PROMOTED, Verdict.INITIAL)
        if not vouched and not force:
            raise Conflict(
                f"The gate did not promote version {number}: {version.reason}. "
                'Send "force": true with a reason to promote it all the same.'
            )
        last = last_promotion(session, model.id)
        kind = "version.promoted" if vouched else "version.forced"
        return move_live(
            session,
            model,
            version,
            falls_back_to=last.version_id,
            fate=Fate.QUARANTINE,
            kind=kind,
            reason=reason,
            actor=actor,
        )

    def roll_back(self, name: str, *, to: int | None, samples: Fate, pin: bool, reason: str, actor: str) -> Moved:
        """Go back: to where the live version falls back to, or to any version that was live before.

        When the commit's answer is lost it is not done twice, which would go further back.
        """
        return self._roll_back(name, to, samples, pin, reason, actor, [])

    @writes
    def _roll_back(
        self,
        session: Session,
        name: str,
        to: int | None,
        samples: Fate,
        pin: bool,
        reason: str,
        actor: str,
        tried: list[_Tried],
    ) -> Moved:
        model = lock_model(session, model_named(session, name).id)
        last = last_promotion(session, model.id)
        for earlier in tried:
            made = session.get(Promotion, (model.id, earlier.epoch))
            if made is not None and (made.version_id, made.actor, made.reason) == (earlier.live_id, actor, reason):
                live, previous = (session.get_one(Version, key) for key in (earlier.live_id, earlier.previous_id))
                return Moved(model, live, previous, earlier.epoch, earlier.samples)
        if to is None:
            if last.falls_back_to is None:
                raise NothingToRollBackTo(name)
            target = session.get_one(Version, last.falls_back_to)
        else:
            target = version_numbered(session, model, to)
        before = session.scalars(
            select(Promotion)
            .where(Promotion.model_id == model.id, Promotion.version_id == target.id)
            .order_by(Promotion.epoch.desc())
            .limit(1)
        ).one_or_none()
        if before is None:
            raise Conflict(
                f"Version {target.number} of {name!r} was never live, so there is no going back to it. "
                f"POST versions/{target.number}/promote moves forward to it."
            )
        if pin:
            model.pinned = True
        moved = move_live(
            session,
            model,
            target,
            falls_back_to=before.falls_back_to,
            fate=samples,
            kind="version.rolled_back",
            reason=reason,
            actor=actor,
        )
        tried[:] = [_Tried(moved.epoch, moved.live.id, moved.previous.id, moved.samples)]
        return moved

    @writes
    def set_pinned(self, session: Session, name: str, value: bool, *, reason: str, actor: str) -> Model:
        """Hold or free promotions. Holding them ends a running update; its samples wait in the queue."""
        model = lock_model(session, model_named(session, name).id)
        at = now(session)
        if value:
            cancel_running(session, model.id, why=f"pinned by {actor}", at=at)
        model.pinned = value
        kind = "model.pinned" if value else "model.unpinned"
        record(session, model_id=model.id, kind=kind, actor=actor, reason=reason, at=at)
        return model

    @writes
    def set_paused(self, session: Session, name: str, value: bool, *, reason: str, actor: str) -> Model:
        """Stop or resume learning. An update that runs already goes on to its end."""
        model = lock_model(session, model_named(session, name).id)
        model.paused = value
        kind = "learning.paused" if value else "learning.resumed"
        record(session, model_id=model.id, kind=kind, actor=actor, reason=reason, at=now(session))
        return model

    @writes
    def request_run(self, session: Session, name: str, *, reason: str, actor: str, slow: bool = False) -> Model:
        """Ask for an update now, whatever the trigger says; a paused model learns this once.

        `slow` asks for one that claims nothing and learns again what the line holds.
        """
        model = model_named(session, name)
        wish = {"slow_requested": True} if slow else {"run_requested": True}
        session.execute(update(Model).where(Model.id == model.id).values(**wish))
        detail = {"lane": Lane.SLOW.value} if slow else {}
        at = now(session)
        record(session, model_id=model.id, kind="learning.requested", actor=actor, reason=reason, at=at, detail=detail)
        return model
