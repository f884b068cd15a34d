"""Families: which models share one backbone. A model joins one when it is created."""

from fastapi import APIRouter

from app.api.deps import Wired
from app.api.key_cache import Scope
from app.api.openapi import problems
from app.api.paths import FamilyPath
from app.api.schemas.families import FamiliesAnswer, FamilyAnswer, FamilyMembersAnswer
from app.api.security import needs
from app.api.shown import shown_model
from app.errors import UnknownFamily

router = APIRouter(prefix="/v1/families", tags=["families"])


@router.get("", summary="List families", response_model=FamiliesAnswer, responses=problems(), **needs(Scope.PREDICT))
def families(parts: Wired) -> FamiliesAnswer:
    """Show every family and who belongs to it."""
    return FamiliesAnswer(
        families=[
            FamilyAnswer(name=family.name, members=[one.name for one in members], created_at=family.created_at)
            for family, members in parts.registry.families()
        ]
    )


@router.get(
    "/{family}",
    summary="Show a family",
    response_model=FamilyMembersAnswer,
    responses=problems(404),
    **needs(Scope.PREDICT),
)
def show(family: FamilyPath, parts: Wired) -> FamilyMembersAnswer:
    """Show the models of a family, each as it stands now."""
    for row, members in parts.registry.families():
        if row.name == family:
            shown = [shown_model(parts, one) for one in members]
            return FamilyMembersAnswer(name=row.name, created_at=row.created_at, members=shown)
    raise UnknownFamily(family)
