"""Models, their versions and families: created, changed, looked up.

Called by the API, the refresher and the worker; what is moved by hand is for `Steering`. Knows the database; knows
nothing of weight files or networks.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from uuid_utils import uuid7

from app.batching import Batching
from app.errors import AlreadyExists, UnknownFamily, UnknownModel, UnknownVersion
from app.networks.spec import NetworkSpec
from app.recipe import NewModel, Recipe
from app.storage.database import Database, looks, now, reads, writes
from app.storage.families import join, members
from app.storage.kept_connection import Cursor
from app.storage.promotions import (
    ancestry,
    append_promotion,
    chunks,
    last_promotion,
    lock_model,
    record,
)
from app.storage.states import ArtifactKind, FileState, LabelState, Verdict
from app.storage.tables import Artifact, Assignment, Family, Label, LedgerEntry, Model, Promotion, Version

Mark = list[tuple[Any, ...]]
_HELD = (Assignment.model_id, Assignment.role, Assignment.version_id, Assignment.epoch, Model.batching)
_MARK = select(*_HELD).join(Model, Model.id == Assignment.model_id).order_by(Model.id, Assignment.role)


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


class ModelRegistry:
    """What there is, what is live, and what was."""

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
        return model_named(session, name)

    @reads
    def models(self, session: Session) -> list[Model]:
        return list(session.scalars(select(Model).order_by(Model.name)))

    @reads
    def labels(self, session: Session, model_id: int) -> list[Label]:
        """Every label ever seen, by id, proposed ones too."""
        return list(session.scalars(select(Label).where(Label.model_id == model_id).order_by(Label.id)))

    @writes
    def change_recipe(self, session: Session, name: str, recipe: Recipe, actor: str) -> Model:
        model = lock_model(session, model_named(session, name).id)
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
        model = lock_model(session, model_named(session, name).id)
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

    @looks
    def assignment_mark(self, cursor: Cursor) -> Mark:
        """What is another whenever `assigned` has something new to say; made to be polled."""
        return cursor.rows(_MARK)

    @reads
    def assigned(self, session: Session) -> list[Assigned]:
        """What servers should hold, of all models."""
        rows = session.execute(
            select(Model, Version, Assignment.epoch, Assignment.role)
            .join(Assignment, Assignment.model_id == Model.id)
            .join(Version, Version.id == Assignment.version_id)
            .order_by(Model.id, Assignment.role)
        )
        return [Assigned(model, version, epoch, role) for model, version, epoch, role in rows]

    @reads
    def version(self, session: Session, name: str, number: int) -> Version:
        return version_numbered(session, model_named(session, name), number)

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


def model_named(session: Session, name: str) -> Model:
    """Give the model; UnknownModel if there is none of that name."""
    model = session.scalar(select(Model).where(Model.name == name))
    if model is None:
        raise UnknownModel(name)
    return model


def version_numbered(session: Session, model: Model, number: int) -> Version:
    """Give the model's version; UnknownVersion if it has none of that number."""
    version = session.scalar(select(Version).where(Version.model_id == model.id, Version.number == number))
    if version is None:
        raise UnknownVersion(model.name, number)
    return version
