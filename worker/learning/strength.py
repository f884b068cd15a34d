"""How strongly a head is regularized, and how sure it may be: chosen by leaving out samples that were learned.

Called by the fast lane now and then, with features that are remembered. No held-out sample is spent, and none that
judges a version is looked at. Knows nothing of where the features are kept.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from worker.learning.calibration import fit_scale
from worker.learning.closed_form import UNCALIBRATED, ClosedFormSettings, closed_form, discriminant
from worker.learning.failure import LearningFailed
from worker.learning.sums import Sums

ROWS = 2000
"""Remembered samples that are enough to choose by."""

_LEAST_ROWS = 8
_MOST_SCORES = 2_000_000  # rows times labels: what is held in memory several times over
_SAME = 1e-4  # of log loss: a difference too small to walk on for


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what it was chosen by. The losses are of samples left out, so they estimate new ones."""

    strength: float
    scale: float  # of the logits, for `closed_form.solve`
    samples: int  # in the sums when it was chosen
    rows: int  # it was chosen by; 0 when it is the default
    loss: float | None  # natural logarithm, mean
    accuracy: float | None

    def due(self, sums: Sums) -> bool:
        """Tell whether it is time to choose again: the samples have doubled or halved since."""
        return sums.samples >= 2 * self.samples or 2 * sums.samples <= self.samples

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Choice":
        return cls(**data)


def choose(sums: Sums, settings: ClosedFormSettings, features: Tensor, label_ids: Sequence[int]) -> Choice:
    """Choose strength and scale by the log loss of samples left out, (n, width) features that are in the sums.

    The loss is taken at its own best scale, and strengths are walked from the default to a minimum that neighbours do
    not beat: 3 to 6 solves and as many products of the rows with a triangle. With fewer than 8 usable rows (of classes
    with two samples or more) it is the default. A strength given in the settings stays, only the scale is fitted. The
    same arguments give the same choice. For sums in which every sample weighs 1.
    """
    form = closed_form(settings)
    start = form.default if settings.strength is None else settings.strength
    counts = sums.counts
    most = min(ROWS, max(_LEAST_ROWS, _MOST_SCORES // max(len(counts), 1)))
    usable = [index for index, label in enumerate(label_ids) if counts.get(label, 0) > 1][:most]
    if len(usable) < _LEAST_ROWS or len(counts) < 2:
        return Choice(start, UNCALIBRATED, sums.samples, 0, None, None)
    scatter = sums.scatter()
    place = {label: row for row, label in enumerate(scatter.label_ids)}
    targets = torch.tensor([place[label_ids[index]] for index in usable])
    rows = features[usable].to("cpu", torch.float64)

    def judged(strength: float) -> tuple[float, Choice]:
        """A strength that has no solution is not chosen; one that was given is the settings' fault."""
        try:
            found = discriminant(scatter, settings, strength)
        except LearningFailed:
            if settings.strength is not None:
                raise
            return math.inf, Choice(strength, UNCALIBRATED, sums.samples, 0, None, None)
        logits = form.left_out(scatter, found, rows, targets, strength, settings.balanced)
        scale, loss = fit_scale(logits, targets, UNCALIBRATED)
        accuracy = float((logits.argmax(1) == targets).double().mean())
        return loss, Choice(strength, scale, sums.samples, len(usable), loss, accuracy)

    best = judged(start)
    if settings.strength is not None:
        return best[1]
    middle = form.strengths.index(start)
    for walk in (form.strengths[middle + 1 :], tuple(reversed(form.strengths[:middle]))):
        moved = False
        for strength in walk:
            tried = judged(strength)
            if tried[0] >= best[0] - _SAME:
                break
            best, moved = tried, True
        if moved:
            break
    return best[1]
