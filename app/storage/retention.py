"""Which versions keep their files: rows stay for ever, files go when nothing can need them any more."""

import time
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.log import get_logger
from app.storage.database import Database, literal, now, reads, writes
from app.storage.promotions import last_promotion, lock_model
from app.storage.tables import (
    Artifact,
    ArtifactKind,
    FileState,
    HoldoutScore,
    Model,
    Serving,
    Update,
    UpdateState,
    Version,
)
from app.storage.weights import WeightStore

log = get_logger(__name__)

RECENT = 200  # versions of the last hour
LEARNER_STATES = 10  # newest versions that keep what the learner needs to go on from them
ORPHAN_SECONDS = 86_400.0


class Retention:
    """Lets version files go in two steps: first the row says so, then the file goes, then the row says it went."""

    def __init__(self, database: Database, weights: WeightStore) -> None:
        self._database = database
        self._weights = weights

    def collect(self) -> int:
        """Delete what no rule keeps; how many versions lost their files."""
        count = 0
        for model_id in self._models():
            for version_id in self._mark(model_id):
                self._weights.delete(version_id)
                self._done(version_id)
                count += 1
            for version_id in self._stale_states(model_id):
                self._weights.delete_artifact(version_id, ArtifactKind.LEARNER_STATE)
        self._weights.sweep(ORPHAN_SECONDS, time.time(), self._known())
        if count:
            log.info("let go of weight files", versions=count)
        return count

    @reads
    def _models(self, session: Session) -> list[int]:
        return list(session.scalars(select(Model.id)))

    @reads
    def _known(self, session: Session) -> set[str]:
        return set(session.scalars(select(Version.id)))

    @writes
    def _mark(self, session: Session, model_id: int) -> list[str]:
        """Under the line's lock, so that no rollback can choose a version that is about to go."""
        lock_model(session, model_id)
        versions = session.scalars(
            select(Version)
            .where(Version.model_id == model_id, Version.files.in_((FileState.PRESENT, FileState.DELETING)))
            .order_by(Version.number.desc())
        ).all()
        needed = _needed(session, model_id, versions)
        kept = scheduled(versions, now(session)) | needed
        gone = [version for version in versions if version.files == FileState.DELETING or version.id not in kept]
        for version in gone:
            version.files = FileState.DELETING
        return [version.id for version in gone]

    @writes
    def _done(self, session: Session, version_id: str) -> None:
        session.execute(update(Version).where(Version.id == version_id).values(files=FileState.DELETED))
        session.execute(delete(HoldoutScore).where(HoldoutScore.version_id == version_id))  # it is never asked again

    @writes
    def _stale_states(self, session: Session, model_id: int) -> list[str]:
        last = last_promotion(session, model_id)
        keep = {last.version_id, last.falls_back_to}  # a rollback takes the learner's state back too
        rows = session.scalars(
            select(Artifact)
            .join(Version, Version.id == Artifact.version_id)
            .where(Version.model_id == model_id, Artifact.kind == ArtifactKind.LEARNER_STATE)
            .order_by(Version.number.desc())
        ).all()
        stale = [row.version_id for row in rows[LEARNER_STATES:] if row.version_id not in keep]
        session.execute(
            delete(Artifact).where(Artifact.version_id.in_(stale), Artifact.kind == ArtifactKind.LEARNER_STATE)
        )
        return stale


def scheduled(versions: Sequence[Version], at: datetime) -> set[str]:
    """Every version of the last hour (at most 200), one an hour for a day, one a day after that; newest first in."""
    kept: set[str] = set()
    seen: set[tuple[str, str]] = set()
    for position, version in enumerate(versions):
        age = at - version.created_at
        if age <= timedelta(hours=1):
            if position < RECENT:
                kept.add(version.id)
            continue
        slot = (
            ("hour", f"{version.created_at:%Y%m%d%H}")
            if age <= timedelta(days=1)
            else (
                "day",
                f"{version.created_at:%Y%m%d}",
            )
        )
        if slot not in seen:
            seen.add(slot)
            kept.add(version.id)
    return kept


def _needed(session: Session, model_id: int, versions: Sequence[Version]) -> set[str]:
    """Live, what it falls back to, their anchors, bases, parents of running updates, kept by hand, what servers use."""
    last = last_promotion(session, model_id)
    needed: set[str | None] = {last.version_id, last.falls_back_to}
    for version_id in [last.version_id, last.falls_back_to]:
        version = None if version_id is None else session.get(Version, version_id)
        needed.add(None if version is None else version.metrics.get("anchor"))
    needed.update(version.id for version in versions if version.kept)
    needed.update(
        session.scalars(
            select(Update.parent_id).where(Update.model_id == model_id, Update.state == literal(UpdateState.RUNNING))
        )
    )
    for serving in session.scalars(select(Serving).where(Serving.model_id == model_id)):
        needed.add(serving.version_id)
        needed.update(_ids(serving.warm))
    found = {version_id for version_id in needed if version_id is not None}
    found.update(version.base_id for version in versions if version.id in found and version.base_id)
    return found


def _ids(values: Collection[object]) -> set[str]:
    return {value for value in values if isinstance(value, str)}
