"""Models, their versions, and the moves an admin makes: create, promote, roll back, pin, pause.

Called by the API, the refresher and the worker. Knows the database; knows nothing of weight files or networks.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from uuid_utils import uuid7

from app.batching import Batching
from app.errors import AlreadyExists, Conflict, NothingToRollBackTo, Pinned, UnknownFamily, UnknownModel, UnknownVersion
from app.networks.spec import NetworkSpec
from app.recipe import NewModel, Recipe
from app.storage.database import Database, now, reads, writes
from app.storage.families import join, members
from app.storage.moves import Moved, move_live
from app.storage.promotions import (
    ancestry,
    append_promotion,
    cancel_running,
    chunks,
    last_promotion,
    lock_model,
    record,
)
from app.storage.settling import Fate
from app.storage.states import ArtifactKind, FileState, LabelState, Lane, Verdict
from app.storage.tables import Artifact, Assignment, Family, Label, LedgerEntry, Model, Promotion, Version


@dataclass(frozen=True)
class Live:
    """What a model serves now."""

    model: Model
    version: Version
    epoch: int
    falls_back_to: str | None


@dataclass(frozen=True)
class Assigned:
    """What a server should hold of a model, in a role."""

    model: Model
    version: Version
    epoch: int
    role: str


@dataclass(frozen=True)
class _Tried:
    """A move whose commit may have been made."""

    epoch: int
    live_id: str
    previous_id: str
    samples: dict[str, int]


class ModelRegistry:
    """Publish, promote, roll back, live, history."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, new: NewModel, actor: str) -> Live:
        """Create the model with version 1 live: a spec with base weights or a seed, no file of its own."""
        try:
            return self._create(new, actor)
        except IntegrityError:
            raise AlreadyExists("model", new.name) from None

    @writes
    def _create(self, session: Session, new: NewModel, actor: str) -> Live:
        at = now(session)
        family_id, base_id = join(session, new, at)
        model = Model(
            name=new.name,
            input=new.input.model_dump(),
            network=new.network.model_dump(),
            recipe=new.recipe.model_dump(mode="json"),
            recipe_number=1,
            holdout_key=secrets.token_bytes(32),
            pinned=False,
            paused=False,
            run_requested=False,
            slow_requested=False,
            family_id=family_id,
            created_at=at,
        )
        session.add(model)
        session.flush()
        for number, name in enumerate(new.labels, start=1):
            session.add(Label(model_id=model.id, id=number, name=name, state=LabelState.ACTIVE, created_at=at))
        spec = NetworkSpec(
            architecture=new.network.architecture,
            input=new.input,
            labels=tuple(range(1, len(new.labels) + 1)),
            weights=new.network.weights,
            seed=new.recipe.seed,
        )
        version = Version(
            id=str(uuid7()),
            model_id=model.id,
            number=1,
            base_id=base_id,
            spec=spec.to_json(),
            recipe=model.recipe,
            recipe_number=1,
            verdict=Verdict.INITIAL,
            reason="created; nothing learned yet",
            metrics={},
            files=FileState.NONE,
            kept=False,
            created_at=at,
        )
        session.add(version)
        session.flush()
        append_promotion(
            session,
            model_id=model.id,
            epoch=1,
            version_id=version.id,
            falls_back_to=None,
            actor=actor,
            reason="created",
            at=at,
        )
        record(session, model_id=model.id, kind="model.created", actor=actor, reason="", at=at, detail={"version": 1})
        session.flush()
        return Live(model, version, 1, None)

    @reads
    def model(self, session: Session, name: str) -> Model:
        return _model(session, name)

    @reads
    def models(self, session: Session) -> list[Model]:
        return list(session.scalars(select(Model).order_by(Model.name)))

    @reads
    def labels(self, session: Session, model_id: int) -> list[Label]:
        """Every label ever seen, by id, proposed ones too."""
        return list(session.scalars(select(Label).where(Label.model_id == model_id).order_by(Label.id)))

    @writes
    def change_recipe(self, session: Session, name: str, recipe: Recipe, actor: str) -> Model:
        model = lock_model(session, _model(session, name).id)
        model.recipe = recipe.model_dump(mode="json")
        model.recipe_number += 1
        record(
            session,
            model_id=model.id,
            kind="recipe.changed",
            actor=actor,
            reason="",
            at=now(session),
            detail={"number": model.recipe_number, "recipe": model.recipe},
        )
        return model

    @writes
    def change_batching(self, session: Session, name: str, batching: Batching, actor: str) -> Model:
        """Have every server join the model's requests in another way from its next look on."""
        model = lock_model(session, _model(session, name).id)
        model.batching = batching.model_dump(mode="json")
        record(
            session,
            model_id=model.id,
            kind="batching.changed",
            actor=actor,
            reason="",
            at=now(session),
            detail={"batching": model.batching},
        )
        return model

    @reads
    def live(self, session: Session, model_id: int) -> Live:
        model = session.get(Model, model_id)
        if model is None:
            raise UnknownModel(str(model_id))
        last = last_promotion(session, model_id)
        version = session.get_one(Version, last.version_id)
        return Live(model, version, last.epoch, last.falls_back_to)

    @reads
    def assigned(self, session: Session) -> list[Assigned]:
        """What servers should hold, of all models: one cheap query, made to be polled."""
        rows = session.execute(
            select(Model, Version, Assignment.epoch, Assignment.role)
            .join(Assignment, Assignment.model_id == Model.id)
            .join(Version, Version.id == Assignment.version_id)
            .order_by(Model.id, Assignment.role)
        )
        return [Assigned(model, version, epoch, role) for model, version, epoch, role in rows]

    @reads
    def version(self, session: Session, name: str, number: int) -> Version:
        return _version(session, _model(session, name), number)

    @reads
    def version_by_id(self, session: Session, version_id: str) -> Version:
        version = session.get(Version, version_id)
        if version is None:
            raise UnknownVersion("?", version_id)
        return version

    @reads
    def versions(self, session: Session, model_id: int, before: int | None, limit: int) -> list[Version]:
        """Newest first, numbers below `before`."""
        query = select(Version).where(Version.model_id == model_id).order_by(Version.number.desc()).limit(limit)
        if before is not None:
            query = query.where(Version.number < before)
        return list(session.scalars(query))

    @reads
    def counts(self, session: Session, version_ids: Collection[str]) -> dict[str, dict[str, int]]:
        """How many revisions each version took in, by role."""
        counts: dict[str, dict[str, int]] = {version_id: {} for version_id in version_ids}
        for ids in chunks(version_ids):
            rows = session.execute(
                select(LedgerEntry.version_id, LedgerEntry.role, func.count())
                .where(LedgerEntry.version_id.in_(ids))
                .group_by(LedgerEntry.version_id, LedgerEntry.role)
            )
            for version_id, role, count in rows:
                counts[version_id][role] = count
        return counts

    @reads
    def line(self, session: Session, version_id: str) -> list[str]:
        """The ids of the version and its ancestors, newest first."""
        return ancestry(session, version_id)

    @reads
    def promotions(self, session: Session, model_id: int, limit: int = 100) -> list[Promotion]:
        """The pointer's moves, newest first."""
        return list(
            session.scalars(
                select(Promotion).where(Promotion.model_id == model_id).order_by(Promotion.epoch.desc()).limit(limit)
            )
        )

    @reads
    def artifacts(self, session: Session, version_id: str) -> dict[ArtifactKind, Artifact]:
        rows = session.scalars(select(Artifact).where(Artifact.version_id == version_id))
        return {ArtifactKind(row.kind): row for row in rows}

    @reads
    def nearest(self, session: Session, version_id: str, kind: ArtifactKind) -> Version | None:
        """The newest of the version and its ancestors that has such an artifact."""
        for ids in chunks(ancestry(session, version_id)):
            found = session.scalars(
                select(Version)
                .join(Artifact, Artifact.version_id == Version.id)
                .where(Version.id.in_(ids), Artifact.kind == kind)
                .order_by(Version.number.desc())
                .limit(1)
            ).one_or_none()
            if found is not None:
                return found
        return None

    @writes
    def promote(self, session: Session, name: str, number: int, *, force: bool, reason: str, actor: str) -> Moved:
        """Make a version live by hand. One the gate did not vouch for, or a pinned model, needs `force`."""
        model = lock_model(session, _model(session, name).id)
        version = _version(session, model, number)
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
        model = lock_model(session, _model(session, name).id)
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
            target = _version(session, model, to)
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
        model = lock_model(session, _model(session, name).id)
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
        model = lock_model(session, _model(session, name).id)
        model.paused = value
        kind = "learning.paused" if value else "learning.resumed"
        record(session, model_id=model.id, kind=kind, actor=actor, reason=reason, at=now(session))
        return model

    @writes
    def request_run(self, session: Session, name: str, *, reason: str, actor: str, slow: bool = False) -> Model:
        """Ask for an update now, whatever the trigger says; a paused model learns this once.

        `slow` asks for one that claims nothing and learns again what the line holds.
        """
        model = _model(session, name)
        wish = {"slow_requested": True} if slow else {"run_requested": True}
        session.execute(update(Model).where(Model.id == model.id).values(**wish))
        detail = {"lane": Lane.SLOW.value} if slow else {}
        at = now(session)
        record(session, model_id=model.id, kind="learning.requested", actor=actor, reason=reason, at=at, detail=detail)
        return model

    @reads
    def families(self, session: Session) -> list[tuple[Family, list[Model]]]:
        """Every family with its members."""
        found = session.scalars(select(Family).order_by(Family.name)).all()
        return [(family, members(session, family.id)) for family in found]

    @reads
    def family(self, session: Session, name: str) -> tuple[Family, list[Model]]:
        """The family of that name with its members, in the order in which they came."""
        found = session.scalar(select(Family).where(Family.name == name))
        if found is None:
            raise UnknownFamily(name)
        return found, members(session, found.id)


def _model(session: Session, name: str) -> Model:
    model = session.scalar(select(Model).where(Model.name == name))
    if model is None:
        raise UnknownModel(name)
    return model


def _version(session: Session, model: Model, number: int) -> Version:
    version = session.scalar(select(Version).where(Version.model_id == model.id, Version.number == number))
    if version is None:
        raise UnknownVersion(model.name, number)
    return version
