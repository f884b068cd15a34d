"""Families: models that share one backbone, each with its own head and labels.

Steps inside the registry's and the queue's transactions.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import Conflict
from app.recipe import NewModel
from app.storage.promotions import last_promotion, lock_model
from app.storage.states import FileState
from app.storage.tables import Family, Model, Version


def join(session: Session, new: NewModel, at: datetime) -> tuple[int | None, str | None]:
    """Find or make the family the new model names; the answer is its id and the version whose backbone it starts with.

    The version is None where the backbone is still the one that the network's spec describes. `Conflict` for a
    network that cannot share the others' backbone.
    """
    if new.family is None:
        return None, None
    family = session.scalar(select(Family).where(Family.name == new.family))
    if family is None:
        family = Family(name=new.family, created_at=at)
        session.add(family)
        session.flush()
        return family.id, None
    relatives = members(session, family.id)
    if not relatives:
        return family.id, None
    first, *_ = lock_family(session, relatives[0].id)  # the backbone does not move until the new model is there
    live = session.get_one(Version, last_promotion(session, first.id).version_id)
    for what, mine, theirs in (
        ("input", new.input.model_dump(), first.input),
        ("network", new.network.model_dump(), first.network),
        ("recipe.seed", new.recipe.seed, live.spec["seed"]),  # a recipe may have changed since
    ):
        if mine != theirs:
            raise Conflict(
                f"Family {new.family!r} shares one backbone, and {what} is {mine} while {first.name!r} has {theirs}. "
                "Give the same, or leave `family` out."
            )
    return family.id, backbone_version(session, live)


def members(session: Session, family_id: int) -> list[Model]:
    return list(session.scalars(select(Model).where(Model.family_id == family_id).order_by(Model.id)))


def lock_family(session: Session, model_id: int) -> list[Model]:
    """Lock a model and all who share its backbone, always in the order of their ids; the model itself comes first."""
    family_id = session.scalar(select(Model.family_id).where(Model.id == model_id))
    if family_id is None:
        return [lock_model(session, model_id)]
    locked: dict[int, Model] = {}
    # Who creates a relative holds the locks of those before it, so one that came meanwhile is seen by then.
    while new := [one.id for one in members(session, family_id) if one.id not in locked]:
        locked |= {one: lock_model(session, one) for one in new}
    return [locked.pop(model_id), *locked.values()]


def backbone_version(session: Session, version: Version) -> str | None:
    """The version whose file holds this one's backbone; None where the spec alone describes it."""
    if version.base_id is None:
        return None if version.files == FileState.NONE else version.id
    base = session.get_one(Version, version.base_id)
    return None if base.files == FileState.NONE and base.base_id is None else base.id
