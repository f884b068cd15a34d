"""How a line of versions fares on labels before it learns them: carried from version to version.

Called by every way to learn. Knows answers and labels only; the figures are `app.continual_metrics`'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from app.continual_metrics import Prequential
from worker.learning.better import Better

Answers = Sequence[int | None]


@dataclass(frozen=True)
class Track:
    """Prequential accuracy of what was served, of two heads that rival, and of repeating the last label."""

    served: Prequential = field(default_factory=Prequential)
    better: Better = field(default_factory=Better)
    repeated: int = 0  # labels that were the same as the one before
    last_label: int | None = None

    def seen(self, labels: Sequence[int], answers: Answers, rivals: Sequence[Answers] = ()) -> "Track":
        """Count labels in their order, with what live had answered and, where there are, the steady and fading head."""
        served, repeated, last = self.served, self.repeated, self.last_label
        for label, answer in zip(labels, answers, strict=True):
            served = served.seen(answer == label)
            repeated += label == last
            last = label
        better = self.better
        if rivals:
            steady, fading = (
                torch.tensor(
                    [answer == label for label, answer in zip(labels, given, strict=True)], dtype=torch.float64
                )
                for given in rivals
            )
            better = better.after(steady, fading)
        return Track(served, better, repeated, last)

    def to_json(self) -> dict[str, Any]:
        """What a version's row says: the figures of what was served, and the states to go on from."""
        return {
            **self.served.figures(),
            "no_change": self.repeated / self.served.n if self.served.n else None,
            "state": {
                "served": self.served.to_json(),
                "better": self.better.to_json(),
                "repeated": self.repeated,
                "last_label": self.last_label,
            },
        }

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, Any]) -> "Track":
        """Go on from what the parent's row says."""
        state = (metrics.get("prequential") or {}).get("state")
        if not state:
            return cls()
        return cls(
            Prequential.from_json(state["served"]),
            Better.from_json(state["better"]),
            state["repeated"],
            state["last_label"],
        )
