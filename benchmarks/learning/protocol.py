"""What a row of the table is: a protocol, the figure others published for it, and the bound that follows.

Made by the files of the single protocols, run by `run.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Figures = dict[str, float]
Measure = Callable[..., Figures]


@dataclass(frozen=True)
class Protocol:
    """One row. `measure(pictures, seed, **settings)` gives `accuracy` in percent and what else is worth showing."""

    name: str
    data: str  # "mnist" or "fashion_mnist"
    measure: Measure
    settings: Mapping[str, Any]
    reference: str  # as published
    least: float | None = None  # mean accuracy from which on the row holds; None: shown for comparison
    above: bool = False  # whether `least` itself is not enough
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # what --select compares on held-out pictures
    chosen: str = "published"  # where the settings come from

    def holds(self, accuracy: float) -> bool | None:
        if self.least is None:
            return None
        return accuracy > self.least if self.above else accuracy >= self.least

    def bound(self) -> str:
        return "" if self.least is None else f"{'>' if self.above else '≥'} {self.least:.2f}"
