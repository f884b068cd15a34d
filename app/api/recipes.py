"""The recipes that have names, spelled out."""

from fastapi import APIRouter

from app.api.key_cache import Scope
from app.api.openapi import problems
from app.api.schemas.recipes import NamedRecipeAnswer, RecipesAnswer
from app.api.security import needs
from app.named_recipes import ABOUT, DEFAULT, DEFAULT_PRETRAINED, NAMED
from app.recipe import Recipe

router = APIRouter(prefix="/v1/recipes", tags=["models"])


@router.get(
    "", summary="List the named recipes", response_model=RecipesAnswer, responses=problems(), **needs(Scope.PREDICT)
)
def recipes() -> RecipesAnswer:
    """Show what each recipe with a name is for, and spell it out: a place to start one's own from."""
    return RecipesAnswer(
        default=DEFAULT,
        default_pretrained=DEFAULT_PRETRAINED,
        recipes=[
            NamedRecipeAnswer(
                name=name,
                about=ABOUT[name],
                differs=dict(differs),
                recipe=Recipe.model_validate(name).model_dump(mode="json"),
            )
            for name, differs in NAMED.items()
        ],
    )
