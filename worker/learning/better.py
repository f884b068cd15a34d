"""Which of two heads serves: the one that has lately answered better, asked before it learned the answer.

Kept by the fast lane where a head forgets. A few numbers; knows nothing of the heads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

WINDOW = 200.0
"""Answers that count: η = 1 − 1/window."""

Which = Literal["steady", "fading"]


@dataclass(frozen=True)
class Better:
    """Fading prequential accuracy of both: S ← right + ηS, N ← 1 + ηN, accuracy S/N (Gama, Sebastião, Rodrigues 2013).

    The steady head serves until the fading one is ahead, and again when it is ahead itself: at a tie nothing changes.
    """

    steady: float = 0.0  # S of the head that forgets nothing
    fading: float = 0.0  # S of the head that forgets
    answers: float = 0.0  # N
    serving: Which = "steady"

    def after(self, steady: Tensor, fading: Tensor, window: float = WINDOW) -> "Better":
        """Count answers in, oldest first: (n,) whether each head was right before it learned that sample.

        A claim's samples are all asked before any of them is learned.
        """
        eta = 1 - 1 / window
        s, f, n, serving = self.steady, self.fading, self.answers, self.serving
        for one, other in zip(steady.tolist(), fading.tolist(), strict=True):
            s, f, n = one + eta * s, other + eta * f, 1 + eta * n
            if s > f:
                serving = "steady"
            elif f > s:
                serving = "fading"
        return Better(s, f, n, serving)

    @property
    def accuracies(self) -> tuple[float, float] | None:
        """Give the accuracy of the steady and of the fading head; None before the first answer."""
        return (self.steady / self.answers, self.fading / self.answers) if self.answers else None

    def to_json(self) -> dict[str, Any]:
        return {"steady": self.steady, "fading": self.fading, "answers": self.answers, "serving": self.serving}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Better":
        return cls(**data)
