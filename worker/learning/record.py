"""What happened while a network learned: written by the learner, kept with the version."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LearningRecord:
    """What happened. Accuracies are of the fold, before its own last pass; None without a fold."""

    new: int
    memory: int
    passes: int
    best_pass: int  # whose weights were kept; 0 when there was nothing to learn from
    steps: int
    train_losses: tuple[float, ...]  # mean of each pass, penalties included
    fold_losses: tuple[float, ...]  # first before the first pass
    fold_size: int
    fold_accuracy_before: float | None
    fold_accuracy: float | None
    majority_accuracy: float | None  # of always answering the fold's most frequent class
    fold_learned: bool  # whether the new samples of the fold were learned in a last pass
    resumed: bool  # whether the learner state was carried on
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
