"""How a line of versions fares on labels before it learns them: carried from version to version.

Called by every way to learn. Knows answers and labels only; the figures are `app.continual_metrics`'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.continual_metrics import Prequential

SERVED = "served"


@dataclass(frozen=True)
class Track:
    """Prequential accuracy of what was served, of rivals that were not, and of repeating the last label."""

    states: Mapping[str, Prequential] = field(default_factory=dict)
    repeated: int = 0  # labels that were the same as the one before
    last_label: int | None = None

    def seen(self, labels: Sequence[int], answers: Mapping[str, Sequence[int | None]]) -> "Track":
        """Count labels in their order, with what each contestant had answered; the contestants may change."""
        states = {name: self.states.get(name, Prequential()) for name in answers}
        repeated, last = self.repeated, self.last_label
        for index, label in enumerate(labels):
            for name, given in answers.items():
                states[name] = states[name].seen(given[index] == label)
            repeated += label == last
            last = label
        return replace(self, states=states, repeated=repeated, last_label=last)

    def best(self, names: Sequence[str]) -> str:
        """The contestant with the best fading accuracy; of equals the first named."""
        return max(names, key=lambda name: (self.states.get(name, Prequential()).fading or 0.0, -names.index(name)))

    def to_json(self) -> dict[str, Any]:
        """What a version's row says: the figures of what was served, and the states to go on from."""
        served = self.states.get(SERVED, Prequential())
        return {
            **served.figures(),
            "no_change": self.repeated / served.n if served.n else None,
            "state": {
                "of": {name: state.to_json() for name, state in self.states.items()},
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
        of = {name: Prequential.from_json(saved) for name, saved in state["of"].items()}
        return cls(of, state["repeated"], state["last_label"])
