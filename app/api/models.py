"""Models: created, shown, given another recipe."""

import json
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from app.api.body import described, in_body, read_json
from app.api.convergence import converged
from app.api.deps import Parts, Wired
from app.api.key_cache import Scope
from app.api.openapi import problems
from app.api.paths import ModelPath
from app.api.schemas.models import ModelAnswer, ModelChange, ModelRequest, ModelsAnswer
from app.api.security import Called, needs
from app.api.shown import shown_model
from app.errors import AlreadyExists, InvalidNetwork, NotFound, UnknownModel
from app.named_recipes import laid_over
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput, ImageInput, Input, NetworkChoice, NewModel, Recipe, misfits
from app.storage.tables import Model

router = APIRouter(prefix="/v1/models", tags=["models"])

_INPUT: TypeAdapter[ImageInput | FeaturesInput] = TypeAdapter(Input)


@router.post(
    "",
    status_code=201,
    summary="Create a model",
    response_model=ModelAnswer,
    responses=problems(400, 409, 413, 415),
    **needs(Scope.ADMIN, **described(ModelRequest)),
)
async def create(request: Request, response: Response, parts: Wired, caller: Called) -> ModelAnswer:
    """Create a model whose version 1 is live at once; a network that cannot be built is refused, nothing stored."""
    asked = await read_json(request, ModelRequest)
    answer = await run_in_threadpool(_create, parts, asked, caller.name)
    response.headers["Location"] = f"/v1/models/{answer.name}"
    return answer


@router.get("", summary="List models", response_model=ModelsAnswer, responses=problems(), **needs(Scope.PREDICT))
def models(parts: Wired) -> ModelsAnswer:
    """Show every model."""
    return ModelsAnswer(models=[shown_model(parts, model) for model in parts.registry.models()])


@router.get(
    "/{model}", summary="Show a model", response_model=ModelAnswer, responses=problems(404), **needs(Scope.PREDICT)
)
def show(model: ModelPath, parts: Wired) -> ModelAnswer:
    """Show what is live, what waits, and how the model learns."""
    return shown_model(parts, parts.registry.model(model))


@router.patch(
    "/{model}",
    summary="Change a model",
    response_model=ModelAnswer,
    responses=problems(400, 404, 413, 415),
    **needs(Scope.ADMIN, **described(ModelChange)),
)
async def change(request: Request, model: ModelPath, parts: Wired, caller: Called) -> ModelAnswer:
    """Change how the model learns, from its next update on, or how its requests are joined, within a moment."""
    asked = await read_json(request, ModelChange)

    def act() -> ModelAnswer:
        row = parts.registry.model(model)
        recipe = None if asked.recipe is None else _changed(row, asked.recipe)
        if asked.batching is not None:
            row = parts.registry.change_batching(model, asked.batching, caller.name)
            parts.refresher.wake()
        if recipe is not None:
            row = parts.registry.change_recipe(model, recipe, caller.name)
        return shown_model(parts, row)

    return await run_in_threadpool(act)


def _create(parts: Parts, asked: ModelRequest, actor: str) -> ModelAnswer:
    if _exists(parts, asked.name):
        raise AlreadyExists("model", asked.name)
    fields = {name: getattr(asked, name) for name in NewModel.model_fields}
    if not asked.network.architecture:
        architecture = parts.default_architecture(asked.input)
        fields["network"] = asked.network.model_copy(update={"architecture": architecture})
    new = NewModel(**fields)
    spec = NetworkSpec(
        architecture=new.network.architecture,
        input=new.input,
        labels=tuple(range(1, len(new.labels) + 1)),
        weights=new.network.weights,
        seed=new.recipe.seed,
    )
    try:
        parts.try_build(spec)
    except NotFound as error:  # the base weights; the address itself exists
        raise InvalidNetwork(str(error)) from error
    live = parts.registry.create(new, actor)
    converged(parts, live.model.id, live.epoch)  # or who asks at once might ask a server that does not know it yet
    return shown_model(parts, live.model)


def _exists(parts: Parts, name: str) -> bool:
    try:
        parts.registry.model(name)
    except UnknownModel:
        return False
    return True


def _changed(model: Model, change: dict[str, Any]) -> Recipe:
    """Lay the change over the model's recipe, or over the one it names; RequestValidationError if that is none."""
    given = change if change.get("based_on") is not None else laid_over(model.recipe, change)
    try:
        recipe = Recipe.model_validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise RequestValidationError(in_body(found, Recipe, "recipe")) from None
    shape, network = _INPUT.validate_python(model.input), NetworkChoice.model_validate(model.network)
    wrong = misfits(recipe, shape, network, family=model.family_id is not None)
    if wrong:
        raise RequestValidationError([{"type": "value_error", "loc": ("body",), "msg": one} for one in wrong])
    return recipe
