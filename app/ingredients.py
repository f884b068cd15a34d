"""What a recipe is made of: each part a pydantic form that refuses unknown fields and says what would be right.

Read through `app.recipe` by both sides. Names are the field's own; formulas and sources stand with the code in
`worker/learning` that follows them.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Unknown fields are refused; instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class L2SP(Strict):
    """Pull the weights towards an earlier point: strength/2 · ‖θ − θ*‖² (Li et al. 2018, arXiv 1802.01483)."""

    kind: Literal["l2_sp"] = "l2_sp"
    anchor: Literal["previous", "pretrained"] = Field(
        default="previous",
        description="`previous` is the version the update starts from; `pretrained` the weights before any learning.",
    )
    strength: float = Field(default=0.01, ge=0, le=1e4)
    head_strength: float | None = Field(
        default=None,
        ge=0,
        le=1e4,
        description="For the head: towards the previous head, or with `pretrained` towards zero; null is `strength`.",
    )


class EWC(Strict):
    """Hold each weight by how much the line's answers depend on it (online EWC: Schwarz et al. 2018, 1805.06370)."""

    kind: Literal["ewc"] = "ewc"
    strength: float = Field(default=100.0, ge=0, le=1e9)
    decay: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="How much of the earlier importance stays: F ← γF + F_t. With 1 it only ever grows.",
    )
    samples: int = Field(default=500, ge=1, le=100_000, description="Samples that each new importance is measured on.")


class LwF(Strict):
    """Keep the answers of the version before on the samples at hand (Li, Hoiem 2016, arXiv 1606.09282)."""

    kind: Literal["lwf"] = "lwf"
    strength: float = Field(default=1.0, ge=0, le=1e4)
    temperature: float = Field(default=2.0, gt=0, le=100)


class OwnPenalty(Strict):
    """A loss of the user's own, by its name in the builder's `penalties`."""

    kind: Literal["own"] = "own"
    name: str = Field(min_length=1, max_length=64)
    strength: float = Field(default=1.0, ge=0, le=1e4)


Penalty = Annotated[L2SP | EWC | LwF | OwnPenalty, Field(discriminator="kind")]


class Memory(Strict):
    """Which learned samples are rehearsed beside the new ones."""

    kind: Literal["class_balanced", "uniform"] = Field(
        default="class_balanced", description="The same share for each class, or a uniform sample of all."
    )
    capacity: int = Field(default=2000, ge=0, le=1_000_000, description="Samples kept in rehearsal; 0 rehearses none.")


class ER(Strict):
    """Experience replay: new and remembered samples in one loss (Chaudhry et al. 2019, arXiv 1902.10486)."""

    kind: Literal["er"] = "er"


class ERACE(Strict):
    """Experience replay in which new samples compete only with classes new to them (Caccia et al. 2022, 2104.05025)."""

    kind: Literal["er_ace"] = "er_ace"


class DERpp(Strict):
    """Dark experience replay: remembered logits are matched too (Buzzega et al. 2020, arXiv 2004.07211)."""

    kind: Literal["der_pp"] = "der_pp"
    alpha: float = Field(default=0.5, ge=0, le=100, description="Weight of the squared distance to stored logits.")
    beta: float = Field(default=0.5, ge=0, le=100, description="Weight of the loss on remembered labels.")


Rehearsal = Annotated[ER | ERACE | DERpp, Field(discriminator="kind")]


_DECAY = "Pulls every weight that learns towards zero, also one that no answer depends on."


class _Stepping(Strict):
    backbone_lr: float | None = Field(
        default=None, gt=0, le=10, description="Learning rate of everything but the head; null is `lr`."
    )


class SGD(_Stepping):
    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.01, gt=0, le=10)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1, description=_DECAY)


class Adam(_Stepping):
    kind: Literal["adam"] = "adam"
    lr: float = Field(default=0.001, gt=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1, description=_DECAY)


class AdamW(_Stepping):
    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=0.001, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1, description=_DECAY)


Optimizer = Annotated[SGD | Adam | AdamW, Field(discriminator="kind")]


class Augmentation(Strict):
    """Random changes of pictures while they are learned; stored originals stay as they came."""

    crop: int = Field(default=0, ge=0, le=64, description="Pixels of padding around a random crop of the same size.")
    flip: bool = Field(default=False, description="Whether half of the pictures are mirrored left to right.")


class Fusion(Strict):
    """How the weights of an update are joined with the weights before it."""

    averaging: float = Field(default=0.97, ge=0, lt=1, description="Decay of the running average along the steps.")
    interpolation: float = Field(
        default=1.0, gt=0, le=1, description="Share of the learned weights in θ = (1 − share)·θ_before + share·θ."
    )


class Softmax(Strict):
    """A linear layer learned by gradient steps, together with whatever else may learn."""

    kind: Literal["softmax"] = "softmax"


class _ClosedForm(Strict):
    power: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Exponent that a picture's features are raised to before the head, their signs kept; null leaves "
        "them as the backbone makes them. Vectors of numbers always stay as they are.",
    )
    projection: int = Field(
        default=0,
        ge=0,
        le=20_000,
        description="Width of a fixed random ReLU layer before the head (RanPAC, arXiv 2307.02251); 0 has none.",
    )
    forgetting: float = Field(
        default=1.0,
        gt=0.9,
        le=1,
        description="Below 1 a second head forgets by this factor a label; of both the one that answers better serves.",
    )


class Ridge(_ClosedForm):
    """Regularized least squares, exact after every label: W = (G + λI)⁻¹ S."""

    kind: Literal["ridge"] = "ridge"
    strength: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="λ as a share of the features' mean scatter, which is rounded to an eighth of an octave; null is "
        "chosen by leaving learned samples out.",
    )
    balanced: bool = Field(default=True, description="Whether every class weighs the same, however often it came.")


class SLDA(_ClosedForm):
    """Streaming linear discriminant analysis: class means and one shared covariance (Hayes, Kanan 2020, 1909.01520)."""

    kind: Literal["slda"] = "slda"
    shrinkage: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="ε in ((1 − ε)Σ + εI)⁻¹, I scaled to Σ's mean variance (that rounded to an eighth of an octave); "
        "null is chosen by leaving samples out.",
    )
    refinement: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Steps of logistic regression that the solved head takes over all learned samples; none while "
        "few samples or many wrong labels ask for a shrinkage of a half or more.",
    )


Head = Annotated[Softmax | Ridge | SLDA, Field(discriminator="kind")]


class Trigger(Strict):
    """An update starts when `samples` wait or the oldest has waited `seconds`. A closed-form head waits for neither."""

    samples: int = Field(default=32, ge=1, le=1_000_000)
    seconds: float = Field(default=10, ge=0, le=86_400)


class Schedule(Strict):
    """When a slow update runs that claims nothing: it learns again what the line holds."""

    samples: int | None = Field(
        default=None, ge=1, le=10_000_000, description="After so many samples learned since the last one; null never."
    )
    seconds: float | None = Field(
        default=None, ge=1, le=31_536_000, description="So long after the last one, new samples or not; null never."
    )


class EarlyStopping(Strict):
    """Stop when the loss on a fold of the claim and the memory no longer falls; keep the best weights."""

    fold: float = Field(
        default=0.15,
        gt=0,
        lt=0.5,
        description="Share of the update's samples set aside to judge it; 200 of them at most.",
    )
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


def unshareable(head: Head, penalties: tuple[Penalty, ...]) -> list[str]:
    """What in a recipe cannot be, when its model shares a backbone: each names the field and what to do."""
    found = []
    if isinstance(head, Softmax):
        found.append(
            "recipe.head: models of a family share one backbone, and updates of a 'softmax' head would move it for one "
            "model alone; choose head 'ridge' or 'slda' (recipes 'frozen-backbone', 'fine-tune' and 'drift' have "
            "one), or leave `family` out"
        )
    one_model_s = [one.kind for one in penalties if isinstance(one, EWC | OwnPenalty)]
    if one_model_s:
        found.append(
            f"recipe.penalties: {', '.join(map(repr, dict.fromkeys(one_model_s)))} would look at one model's answers "
            "while the backbone is its family's; choose 'l2_sp' or 'lwf', or leave `family` out"
        )
    return found
