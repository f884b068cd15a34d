"""How to learn, as plain data: filled in from a model's recipe by the worker's update, read by the learner."""

from dataclasses import dataclass, field
from typing import Literal

from worker.learning.optimizers import OptimizerSettings
from worker.learning.penalties import PenaltySettings


@dataclass(frozen=True)
class LearnerSettings:
    """How to learn. A pass is one round over the new samples, of at least `steps_per_pass` batches."""

    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    penalties: tuple[PenaltySettings, ...] = field(default_factory=lambda: (PenaltySettings(),))
    trainable: Literal["all", "head"] = "all"
    batch_size: int = 32
    passes: int = 20
    patience: int = 3
    steps_per_pass: int = 8
    fold: float = 0.15
    averaging: float = 0.97  # decay of the running average of weights that is kept; 0 keeps the last step's
    clip_norm: float = 5.0
    batch_statistics: bool = False  # whether BatchNorm's running statistics may move
    seed: int = 0
