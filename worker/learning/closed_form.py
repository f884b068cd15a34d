"""The catalog of closed-form heads, and the head that sums give: what the fast lane publishes.

Called by the fast lane after every claim, and after sums were rebuilt. A head comes out as an ordinary linear layer,
so nothing that serves it knows how it was found. Knows nothing of files, versions or queues.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from worker.learning import ridge, slda
from worker.learning.failure import LearningFailed
from worker.learning.increment import Increment, Solver
from worker.learning.scatter import Discriminant, Linear, Scatter
from worker.learning.sums import Sums

MASKED = -1e4
"""The logit of a label that has no sample: a probability of zero in float32, and still a finite number."""

UNCALIBRATED = 0.5
"""How much a head is to be believed before anything was measured: both forms are about twice too sure of themselves."""


@dataclass(frozen=True)
class ClosedFormSettings:
    """How a head is solved; `strength` None is chosen from the samples (`strength.choose`)."""

    kind: str = "slda"
    strength: float | None = None
    balanced: bool = True


class Solve(Protocol):
    def __call__(self, scatter: Scatter, strength: float, balanced: bool) -> Discriminant: ...


class Later(Protocol):
    def __call__(self, increment: Increment, strength: float, balanced: bool, solver: Solver) -> Linear: ...


class LeftOut(Protocol):
    def __call__(
        self, scatter: Scatter, solved: Discriminant, rows: Tensor, targets: Tensor, strength: float, balanced: bool
    ) -> Tensor: ...


@dataclass(frozen=True)
class ClosedForm:
    """A row of the catalog: how to solve it, anew and a few samples later, how its samples look left out, and which
    strengths to choose from."""

    solve: Solve
    later: Later
    left_out: LeftOut
    strengths: tuple[float, ...]  # rising
    default: float


CLOSED_FORMS: Mapping[str, ClosedForm] = MappingProxyType(
    {
        "ridge": ClosedForm(ridge.solve, ridge.later, ridge.left_out, ridge.STRENGTHS, ridge.DEFAULT),
        "slda": ClosedForm(slda.solve, slda.later, slda.left_out, slda.STRENGTHS, slda.DEFAULT),
    }
)


@dataclass(frozen=True)
class Solved:
    """A linear head, its rows in the order asked for."""

    weight: Tensor  # (labels, width) float32
    bias: Tensor  # (labels,) float32


def closed_form(settings: ClosedFormSettings) -> ClosedForm:
    """Find the row of the catalog; raises LearningFailed for a kind it has not."""
    if settings.kind not in CLOSED_FORMS:
        raise LearningFailed(f"There is no closed form {settings.kind!r}; choose one of {', '.join(CLOSED_FORMS)}.")
    return CLOSED_FORMS[settings.kind]


def held(settings: ClosedFormSettings, strength: float | None = None) -> float:
    """How strongly a head is held: as the settings say, else by `strength`, else by the form's default."""
    chosen = settings.strength if settings.strength is not None else strength
    return closed_form(settings).default if chosen is None else chosen


def discriminant(scatter: Scatter, settings: ClosedFormSettings, strength: float | None = None) -> Discriminant:
    """Solve in float64. `strength` stands in where the settings leave it open; without either it is the default.

    Raises LearningFailed where the matrix has no factor or the result is not finite.
    """
    try:
        found = closed_form(settings).solve(scatter, held(settings, strength), settings.balanced)
    except RuntimeError as error:
        raise LearningFailed(
            f"The {settings.kind} head has no solution ({error}): raise its strength, or have one chosen."
        ) from error
    if not bool(found.weight.isfinite().all() and found.bias.isfinite().all()):
        raise LearningFailed(f"The {settings.kind} head holds numbers that are not finite: raise its strength.")
    return found


def solve(
    sums: Sums,
    settings: ClosedFormSettings,
    label_ids: Sequence[int],
    *,
    strength: float | None = None,
    scale: float = UNCALIBRATED,
) -> Solved:
    """Solve the head of `label_ids`, a row for each in that order.

    `strength` and `scale` are what `strength.choose` found last. A label without samples gets a row of zeros and the
    bias MASKED; a label that has samples and is not asked for still counts against the others. Without any sample all
    rows are so. The cost is one Cholesky factor, D³/3 multiplications, whatever the number of samples: one solve
    serves all labels of a claim. Raises LearningFailed as `discriminant` does.
    """
    if not sums.samples:
        return laid_out(None, sums.width, label_ids, scale)
    scatter = sums.scatter()
    found = discriminant(scatter, settings, strength)
    return laid_out(Linear(scatter.label_ids, found.weight, found.bias), sums.width, label_ids, scale)


def laid_out(found: Linear | None, width: int, label_ids: Sequence[int], scale: float) -> Solved:
    """Put what was found, if there was anything to find, into the rows asked for, as `solve` says."""
    weight = torch.zeros(len(label_ids), width)
    bias = torch.full((len(label_ids),), MASKED)
    if found is None:
        return Solved(weight, bias)
    place = {label: row for row, label in enumerate(found.label_ids)}
    asked = [(row, place[label]) for row, label in enumerate(label_ids) if label in place]
    to, of = [row for row, _ in asked], [row for _, row in asked]
    weight[to] = (found.weight[of] * scale).float()
    bias[to] = (found.bias[of] * scale).float()
    return Solved(weight, bias)
