"""How a model learns, and what creates it: validated at the API, saved with each version, read by both sides.

Pydantic only; the parts stand in `app.ingredients`, recipes with a name in `app.named_recipes`. Every field has a
default, unknown fields are refused, and a message says what would be right.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from app.ingredients import (
    ER,
    L2SP,
    SGD,
    SLDA,
    Augmentation,
    EarlyStopping,
    Fusion,
    Gate,
    Head,
    Memory,
    NewClasses,
    Optimizer,
    OwnPenalty,
    Penalty,
    Rehearsal,
    Schedule,
    Softmax,
    Strict,
    Trigger,
    unshareable,
)
from app.named_recipes import DEFAULT, DEFAULT_PRETRAINED, NAMED, laid_over


class Recipe(Strict):
    """How a model learns."""

    based_on: Literal["frozen-backbone", "from-scratch", "drift", "fine-tune"] | None = Field(
        default=None, description="A recipe with a name; the fields given beside it change it."
    )
    head: Head = Softmax()
    trainable: Literal["all", "head", "last_blocks", "bitfit"] = Field(
        default="all",
        description="Which weights gradient steps move: all, the head, the last `blocks` blocks and the head, or the "
        "biases and normalization's scales and the head.",
    )
    blocks: int = Field(default=1, ge=1, le=100, description="How many blocks `last_blocks` means.")
    penalties: tuple[Penalty, ...] = Field(default=(L2SP(),), max_length=8)
    rehearsal: Rehearsal = ER()
    memory: Memory = Memory()
    optimizer: Optimizer = SGD()
    augmentation: Augmentation = Augmentation()
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of the head's inputs dropped while learning.")
    fusion: Fusion = Fusion()
    batch_size: int = Field(default=32, ge=1, le=4096)
    early_stopping: EarlyStopping = EarlyStopping()
    trigger: Trigger = Trigger()
    schedule: Schedule = Schedule()
    holdout: float = Field(default=0.1, ge=0, le=0.5, description="Share of samples held out to judge with.")
    test: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Share of samples that neither teach nor judge: reported only.",
    )
    gate: Gate = Gate()
    new_classes: NewClasses = NewClasses()
    seed: int = Field(default=0, ge=0, le=2**31 - 1)

    @property
    def closed_form(self) -> bool:
        """Whether the head is solved, label by label, instead of learned by gradient steps."""
        return not isinstance(self.head, Softmax)

    @property
    def steps(self) -> bool:
        """Whether any weight is moved by gradient steps at all."""
        return not self.closed_form or self.trainable != "head"

    @model_validator(mode="before")
    @classmethod
    def _from_its_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"based_on": value}
        if isinstance(value, dict):
            name = value.get("based_on")
            if isinstance(name, str) and name in NAMED:
                value = laid_over(NAMED[name], value)
            if "penalties" not in value and _stands_still(value):
                value = {**value, "penalties": ()}
        elif not isinstance(value, cls):
            names = ", ".join(repr(name) for name in NAMED)
            raise ValueError(f"expected a recipe: an object, or one of the names {names}")  # noqa: TRY004  pydantic's
        return with_tuple(value, "penalties")

    @model_validator(mode="after")
    def _without_contradiction(self) -> "Recipe":
        found = contradictions(self)
        if found:
            raise ValueError("; and ".join(found))
        return self


def with_tuple(value: Any, name: str) -> Any:
    """Make a list of that name a tuple: what a validator has touched is no JSON any more, where lists pass for both."""
    if isinstance(value, dict) and isinstance(value.get(name), list):
        return {**value, name: tuple(value[name])}
    return value


def _stands_still(given: dict[str, Any]) -> bool:
    """Whether what was given asks for no gradient step: then there is nothing that penalties could hold."""
    head = given.get("head")
    kind = head.get("kind") if isinstance(head, dict) else getattr(head, "kind", None)
    return given.get("trainable") == "head" and kind in ("ridge", "slda")


class ImageInput(Strict):
    """Pictures of any size and form, resized to `size` × `size`."""

    kind: Literal["image"] = "image"
    size: int = Field(ge=4, le=1024)
    channels: Literal[1, 3] = 3


class FeaturesInput(Strict):
    """Vectors of `size` numbers on whatever scales they come."""

    kind: Literal["features"] = "features"
    size: int = Field(ge=1, le=65_536)


Input = Annotated[ImageInput | FeaturesInput, Field(discriminator="kind")]


class NetworkChoice(Strict):
    """Which architecture, and from which weights it starts."""

    architecture: str = Field(
        default="",
        max_length=64,
        description="A name of the catalog or of the builders; chosen by the input when empty.",
    )
    weights: str | None = Field(default=None, description="null, `imagenet`, or `sha256:…` of an added file.")

    @field_validator("weights")
    @classmethod
    def _known_form(cls, value: str | None) -> str | None:
        if value is None or value == "imagenet" or re.fullmatch(r"sha256:[0-9a-f]{64}", value):
            return value
        raise ValueError(
            "expected null, 'imagenet', or 'sha256:' and 64 hex digits as `perennial weights add` prints; no path"
        )


def or_a_name(schema: dict[str, Any]) -> None:
    """Tell in a field's JSON schema that a name may stand in the place of the recipe."""
    recipe = {key: schema.pop(key) for key in ("$ref", "type", "additionalProperties") if key in schema}
    schema.pop("default", None)
    schema["anyOf"] = [recipe, {"type": "string", "enum": list(NAMED)}]


MODEL_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
ModelName = Annotated[str, Field(pattern=MODEL_NAME)]
LabelName = Annotated[str, Field(min_length=1, max_length=200)]


class NewModel(Strict):
    """What creates a model: only `name` and `input` must be given."""

    name: ModelName
    input: Input
    network: NetworkChoice = NetworkChoice()
    labels: tuple[LabelName, ...] = Field(default=(), max_length=10_000)
    recipe: Recipe = Field(
        default_factory=Recipe,
        description="A recipe, or the name of one (GET /v1/recipes spells them out). Left out, it is "
        "`frozen-backbone` with pretrained weights and `from-scratch` without.",
        json_schema_extra=or_a_name,
    )
    family: str | None = Field(
        default=None,
        pattern=MODEL_NAME,
        description="Models of one family share a backbone; each has its own head, which is solved: `ridge` or `slda`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _recipe_by_the_weights(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("recipe") is None:
            network = value.get("network")
            weights = network.get("weights") if isinstance(network, dict) else getattr(network, "weights", None)
            value = {**value, "recipe": DEFAULT if weights is None else DEFAULT_PRETRAINED}
        return with_tuple(value, "labels")

    @model_validator(mode="after")
    def _distinct_labels(self) -> "NewModel":
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label is listed twice; each may stand once")
        return self

    @model_validator(mode="after")
    def _recipe_fits(self) -> "NewModel":
        found = misfits(self.recipe, self.input, self.network, family=self.family is not None)
        if found:
            raise ValueError("; and ".join(found))
        return self


def contradictions(recipe: Recipe) -> list[str]:
    """What a recipe asks for that excludes itself: each names the field and what to do."""
    found = []
    slow = recipe.schedule.samples is not None or recipe.schedule.seconds is not None
    kinds = [(one.kind, one.name if isinstance(one, OwnPenalty) else "") for one in recipe.penalties]
    for kind, name in dict.fromkeys(one for one in kinds if kinds.count(one) > 1):
        found.append(f"penalties: {(name or kind)!r} stands twice; add the strengths and list it once")
    if not recipe.steps:
        found += _in_vain(recipe, slow)
    elif recipe.trainable == "head" and any(isinstance(p, L2SP) and p.anchor == "pretrained" for p in recipe.penalties):
        found.append(
            "penalties: l2_sp with anchor 'pretrained' holds the backbone, and trainable 'head' freezes it; "
            "choose trainable 'all', 'last_blocks' or 'bitfit', or anchor 'previous'"
        )
    if recipe.trainable == "head" and recipe.optimizer.backbone_lr is not None:
        found.append(
            "optimizer.backbone_lr: trainable 'head' freezes the backbone; leave it out or choose trainable 'all'"
        )
    if recipe.trainable == "head" and recipe.augmentation != Augmentation():
        found.append(
            "augmentation: trainable 'head' learns from features that were computed once, which no picture's "
            "change can reach; leave it out or choose another `trainable`"
        )
    if not isinstance(recipe.rehearsal, ER):
        if recipe.closed_form:
            found.append(
                f"rehearsal: {recipe.rehearsal.kind!r} is for heads learned by gradient steps; with a closed-form "
                "head leave `rehearsal` out, or choose head 'softmax'"
            )
        elif recipe.memory.capacity == 0:
            found.append(
                f"rehearsal: {recipe.rehearsal.kind!r} needs remembered samples and memory.capacity is 0; raise the "
                "capacity, or leave `rehearsal` out"
            )
    if recipe.memory.capacity == 0 and recipe.steps and (slow or recipe.closed_form):
        found.append(
            "schedule: a slow update learns from the memory and memory.capacity is 0; raise the capacity, or leave "
            "`schedule` out"
            if slow
            else "memory.capacity: beside a closed-form head the other layers learn from the memory alone, and it is "
            "0; raise it, or choose trainable 'head'"
        )
    if isinstance(recipe.head, SLDA) and recipe.head.refinement and recipe.head.forgetting < 1:
        found.append(
            "head.refinement: its steps look at all learned samples alike, and head.forgetting lets older ones fade; "
            "choose refinement 0 or forgetting 1"
        )
    if recipe.holdout + recipe.test > 0.8:
        found.append("test: holdout and test together leave less than a fifth to learn from; lower one of them")
    return found


def _in_vain(recipe: Recipe, slow: bool) -> list[str]:
    """What is asked of gradient steps where there are none: the head is solved, and all else is frozen."""
    asked = {
        "penalties": bool(recipe.penalties),
        "dropout": recipe.dropout > 0,
        "fusion.interpolation": recipe.fusion.interpolation < 1,
        "schedule": slow,
    }
    fields = ", ".join(field for field, given in asked.items() if given)
    words = (
        f"{fields}: a closed-form head with trainable 'head' takes no gradient steps, so this would do nothing; take "
        "it out (penalties [], dropout 0, fusion.interpolation 1, schedule nulls), or choose trainable 'last_blocks', "
        "'bitfit' or 'all'"
    )
    return [words] if fields else []


def misfits(
    recipe: Recipe, shape: ImageInput | FeaturesInput, network: NetworkChoice, *, family: bool = False
) -> list[str]:
    """What a recipe asks for that this input, network or family cannot give: each names the field and what to do."""
    found = unshareable(recipe.head, recipe.penalties) if family else []
    crop = recipe.augmentation.crop
    if recipe.augmentation != Augmentation() and not isinstance(shape, ImageInput):
        found.append("recipe.augmentation: crops and flips are for pictures, and the input is features; leave it out")
    elif isinstance(shape, ImageInput) and crop > shape.size // 2:
        found.append(
            f"recipe.augmentation.crop: {crop} pixels of padding may leave less than half of a picture of "
            f"{shape.size}; choose at most {shape.size // 2}, an eighth of the size is usual"
        )
    if network.weights is None and any(isinstance(p, L2SP) and p.anchor == "pretrained" for p in recipe.penalties):
        found.append(
            "recipe.penalties: l2_sp with anchor 'pretrained' needs pretrained weights and network.weights is null; "
            "choose anchor 'previous', or name weights"
        )
    return found
