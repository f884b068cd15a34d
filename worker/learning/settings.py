"""How to learn, as plain data: filled in from a model's recipe by the worker's update, read by the learner."""

from dataclasses import dataclass, field
from typing import Literal

from worker.learning.augmentation import AugmentationSettings
from worker.learning.optimizers import OptimizerSettings
from worker.learning.penalty import PenaltySettings


@dataclass(frozen=True)
class RehearsalSettings:
    """How remembered samples enter the loss; a row of the catalog of rehearsal losses."""

    kind: str = "er"
    alpha: float = 0.5  # er_ace: weight of the new samples; der_pp: of the distance to remembered logits
    beta: float = 0.5  # er_ace, der_pp: weight of the loss on remembered labels


@dataclass(frozen=True)
class LearnerSettings:
    """How to learn. A pass is one round over the new samples, of at least `steps_per_pass` batches."""

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    penalties: tuple[PenaltySettings, ...] = field(default_factory=lambda: (PenaltySettings(),))
    rehearsal: RehearsalSettings = field(default_factory=RehearsalSettings)
    trainable: Literal["all", "head", "last_blocks", "bitfit"] = "all"
    blocks: int = 1
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    dropout: float = 0.0  # of the head's inputs
    batch_size: int = 32
    passes: int = 20
    patience: int = 3
    steps_per_pass: int = 8
    fold: float = 0.15
    averaging: float = 0.97  # decay of the running average of weights that is kept; 0 keeps the last step's
    interpolation: float = 1.0  # share of the learned weights in what is given back; the rest is the parent's
    clip_norm: float = 5.0
    batch_statistics: bool = False  # whether BatchNorm's running statistics may move
    seed: int = 0
