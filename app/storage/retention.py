"""Which versions keep their files: rows stay for ever, files go when nothing can need them any more.

Called by the worker's loop now and then. What it asks of the database grows with the files there are, not with the
versions there ever were.
"""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.log import get_logger
from app.storage.database import Database, literal, now, reads, writes
from app.storage.promotions import chunks, last_promotion, lock_model
from app.storage.states import ArtifactKind, FileState, UpdateState
from app.storage.tables import Artifact, HoldoutScore, Model, Serving, Update, Version
from app.storage.weights import WeightStore

log = get_logger(__name__)

RECENT = 200  # versions of the last hour
LEARNER_STATES = 10  # newest versions that keep what the learner needs to go on from them
ORPHAN_SECONDS = 86_400.0
SWEEP_SECONDS = 3600.0  # between two looks for files that no row names

_LOADABLE = (FileState.PRESENT, FileState.NONE)


@dataclass(frozen=True)
class Stored:
    """A version that has files, or stands on those of a base, as far as it matters here."""

    id: str
    base_id: str | None
    files: str
    kept: bool
    created_at: datetime


class Retention:
    """Lets version files go in two steps: first the row says so, then the file goes, then the row says it went."""

    def __init__(self, database: Database, weights: WeightStore) -> None:
        self._database = database
        self._weights = weights
        self._swept: float | None = None  # by the monotonic clock

    def collect(self) -> int:
        """Delete what no rule keeps; how many versions lost their files."""
        count = 0
        for model_id in self._models():
            gone = self._mark(model_id)
            for some in chunks(gone):
                for version_id in some:
                    self._weights.delete(version_id)
                self._done(some)
            for version_id in self._stale_states(model_id):
                self._weights.delete_artifact(version_id, ArtifactKind.LEARNER_STATE)
            count += len(gone)
        at = time.monotonic()
        if self._swept is None or at - self._swept > SWEEP_SECONDS:
            self._weights.sweep(ORPHAN_SECONDS, time.time(), self._known())
            self._swept = at
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
        rows = session.execute(
            select(Version.id, Version.base_id, Version.files, Version.kept, Version.created_at)
            .where(Version.files.in_((*_LOADABLE, FileState.DELETING)), Version.model_id == model_id)
            .where((Version.files != FileState.NONE) | Version.base_id.is_not(None))
            .order_by(Version.number.desc())
        )
        versions = [Stored(*row) for row in rows]
        kept = scheduled(versions, now(session)) | _needed(session, model_id, versions)
        kept |= _bases(session, model_id, versions, kept)
        gone = [version.id for version in versions if version.files == FileState.DELETING or version.id not in kept]
        for some in chunks(gone):
            session.execute(update(Version).where(Version.id.in_(some)).values(files=FileState.DELETING))
        return gone

    @writes
    def _done(self, session: Session, version_ids: Sequence[str]) -> None:
        session.execute(update(Version).where(Version.id.in_(version_ids)).values(files=FileState.DELETED))
        # What they said of held-out samples is never asked again.
        session.execute(delete(HoldoutScore).where(HoldoutScore.version_id.in_(version_ids)))
        session.execute(
            delete(Artifact).where(Artifact.version_id.in_(version_ids), Artifact.kind == ArtifactKind.LEARNER_STATE)
        )

    @writes
    def _stale_states(self, session: Session, model_id: int) -> list[str]:
        last = last_promotion(session, model_id)
        keep = {last.version_id, last.falls_back_to}  # a rollback takes the learner's state back too
        ids = session.scalars(
            select(Version.id)
            .join(Artifact, Artifact.version_id == Version.id)
            .where(
                Version.files == FileState.PRESENT,
                Version.model_id == model_id,
                Artifact.kind == ArtifactKind.LEARNER_STATE,
            )
            .order_by(Version.number.desc())
        ).all()
        stale = [version_id for version_id in ids[LEARNER_STATES:] if version_id not in keep]
        for some in chunks(stale):
            session.execute(
                delete(Artifact).where(Artifact.version_id.in_(some), Artifact.kind == ArtifactKind.LEARNER_STATE)
            )
        return stale


def scheduled(versions: Sequence[Stored], at: datetime) -> set[str]:
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


def _needed(session: Session, model_id: int, versions: Iterable[Stored]) -> set[str]:
    """Live, what it falls back to, their anchors, parents of running updates, kept by hand, what servers use."""
    last = last_promotion(session, model_id)
    needed = _ids([last.version_id, last.falls_back_to])
    for metrics in session.scalars(select(Version.metrics).where(Version.id.in_(needed))).all():
        needed |= _ids([metrics.get("anchor")])
    needed |= {version.id for version in versions if version.kept}
    # Whichever model's: one family's update learns from the lines of all its members.
    needed |= set(session.scalars(select(Update.parent_id).where(Update.state == literal(UpdateState.RUNNING))))
    for serving in session.scalars(select(Serving).where(Serving.model_id == model_id)):
        needed |= _ids([serving.version_id, *serving.warm])
    return needed


def _bases(session: Session, model_id: int, versions: Iterable[Stored], kept: Collection[str]) -> set[str]:
    """The versions without which deltas that stay, of this model or of another, could not be loaded."""
    own = {version.base_id for version in versions if version.base_id is not None and version.id in kept}
    others = session.scalars(
        select(Version.base_id)
        .where(Version.files.in_(_LOADABLE), Version.model_id != model_id, Version.base_id.is_not(None))
        .distinct()
    )
    return own | _ids(others)


def _ids(values: Iterable[object]) -> set[str]:
    return {value for value in values if isinstance(value, str)}
