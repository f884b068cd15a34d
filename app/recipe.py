"""How a model learns, and what creates it: validated at the API, saved with each version, read by both sides.

Pydantic only. Every field has a default, unknown fields are refused, and a message says what would be right.
"""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Strict(BaseModel):
    """Unknown fields are refused; instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class L2SP(Strict):
    """Pull the weights towards an earlier point: strength/2 · ‖θ − θ*‖² (Li et al. 2018, arXiv 1802.01483)."""

    kind: Literal["l2_sp"] = "l2_sp"
    anchor: Literal["previous"] = Field(
        default="previous", description="`previous` is the version the update starts from."
    )
    strength: float = Field(default=0.01, ge=0, le=1e4)


class Memory(Strict):
    """Which learned samples are rehearsed beside the new ones."""

    kind: Literal["class_balanced"] = "class_balanced"
    capacity: int = Field(default=2000, ge=0, le=1_000_000, description="Samples kept in rehearsal; 0 rehearses none.")


class SGD(Strict):
    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.01, gt=0, le=10)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1)


class Adam(Strict):
    kind: Literal["adam"] = "adam"
    lr: float = Field(default=0.001, gt=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1)


class AdamW(Strict):
    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=0.001, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1)


Optimizer = Annotated[SGD | Adam | AdamW, Field(discriminator="kind")]


class Trigger(Strict):
    """An update starts when `samples` wait or the oldest has waited `seconds`."""

    samples: int = Field(default=32, ge=1, le=1_000_000)
    seconds: float = Field(default=10, ge=0, le=86_400)


class EarlyStopping(Strict):
    """Stop when the loss on a fold of the claim and the memory no longer falls; keep the best weights."""

    fold: float = Field(default=0.15, gt=0, lt=0.5, description="Share of the update's samples set aside to judge it.")
    patience: int = Field(default=3, ge=1, le=100, description="Passes without a better loss before it stops.")
    passes: int = Field(default=20, ge=1, le=1000, description="Passes over the new samples at most.")


class Gate(Strict):
    """What a candidate must show on samples that are never trained on."""

    margin: float = Field(default=0.02, ge=0, le=1, description="Share of accuracy a candidate may lose.")
    alpha: float = Field(default=0.05, gt=0, lt=1, description="Error level of the exact test that rejects.")


class NewClasses(Strict):
    """What happens to a label nobody has used before."""

    policy: Literal["propose", "accept", "refuse"] = "propose"
    after: int = Field(default=5, ge=1, le=10_000, description="Samples of a proposed label that make it a class.")


class Recipe(Strict):
    """How a model learns."""

    trainable: Literal["all", "head"] = Field(default="all", description="Which weights learn.")
    penalties: tuple[L2SP, ...] = (L2SP(),)
    memory: Memory = Memory()
    optimizer: Optimizer = SGD()
    batch_size: int = Field(default=32, ge=1, le=4096)
    early_stopping: EarlyStopping = EarlyStopping()
    trigger: Trigger = Trigger()
    holdout: float = Field(default=0.1, ge=0, le=0.5, description="Share of samples held out to judge with.")
    gate: Gate = Gate()
    new_classes: NewClasses = NewClasses()
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


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


MODEL_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
ModelName = Annotated[str, Field(pattern=MODEL_NAME)]
LabelName = Annotated[str, Field(min_length=1, max_length=200)]


class NewModel(Strict):
    """What creates a model: only `name` and `input` must be given."""

    name: ModelName
    input: Input
    network: NetworkChoice = NetworkChoice()
    labels: tuple[LabelName, ...] = Field(default=(), max_length=10_000)
    recipe: Recipe = Recipe()

    @model_validator(mode="after")
    def _distinct_labels(self) -> "NewModel":
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label is listed twice; each may stand once")
        return self
