"""An admin's move of the pointer (T5): to an earlier version or another one, with all that hangs on it.

A step inside the registry's transaction, which holds the model's lock.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.errors import Conflict, FilesGone
from app.storage.database import now
from app.storage.promotions import ancestry, append_promotion, cancel_running, last_promotion, record
from app.storage.settling import Fate, settle_samples
from app.storage.states import FileState
from app.storage.tables import Model, Version


@dataclass(frozen=True)
class Moved:
    """A move of the pointer that was made; `samples` counts samples by what became of them."""

    model: Model
    live: Version
    previous: Version
    epoch: int
    samples: dict[str, int]


def move_live(
    session: Session,
    model: Model,
    target: Version,
    *,
    falls_back_to: str | None,
    fate: Fate,
    kind: str,
    reason: str,
    actor: str,
) -> Moved:
    """T5: move the pointer to `target`, end what runs, and settle every sample the move touches."""
    last = last_promotion(session, model.id)
    if target.id == last.version_id:
        raise Conflict(f"Version {target.number} of {model.name!r} is live already.")
    if target.files in (FileState.DELETING, FileState.DELETED):
        raise FilesGone(model.name, target.number)
    at = now(session)
    previous = session.get_one(Version, last.version_id)
    cancel_running(session, model.id, why=f"{kind} to version {target.number} by {actor}", at=at)
    epoch = last.epoch + 1
    append_promotion(
        session,
        model_id=model.id,
        epoch=epoch,
        version_id=target.id,
        falls_back_to=falls_back_to,
        actor=actor,
        reason=reason,
        at=at,
    )
    settled = settle_samples(
        session,
        old=ancestry(session, previous.id),
        new=ancestry(session, target.id),
        fate=fate,
        why=reason or f"version {previous.number} to {target.number}",
        at=at,
    )
    record(
        session,
        model_id=model.id,
        kind=kind,
        actor=actor,
        reason=reason,
        at=at,
        detail={
            "from": previous.number,
            "to": target.number,
            "epoch": epoch,
            "samples": settled,
            "fate": fate.value,
        },
    )
    session.flush()
    return Moved(model, target, previous, epoch, settled)
