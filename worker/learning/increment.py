"""What a few samples change: a scatter now, told by the one that was factored and a few directions.

Made by `kept_factor`, read by the closed forms. Knows nothing of how a head is solved.

Of a class with the mean μ₀, the weight n₀ and the scatter V₀ then, with d_i = z_i − μ₀ of each sample that came
(s_i > 0) or went (s_i < 0) since and n = n₀ + Σ s_i:

    μ = μ₀ + Σ s_i d_i / n        V = V₀ + Σ s_i d_i d_iᵀ − (Σ s_i d_i)(Σ s_i d_i)ᵀ / n

because a scatter around a mean is the one around any point less n times the square of the distance between them. A
class that was not there has n₀ = 0 and any μ₀.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.learning.scatter import Centres, level
from worker.learning.sums import Moved

Solver = Callable[[Tensor, Tensor], Tensor]
"""(change, wanted) ↦ X, (rows of wanted, width), of (A + Bᵀ·change·B) Xᵀ = Bᵀ·wantedᵀ.

A is the matrix that a closed form made of the scatter then, B the increment's directions.
"""


class Dear(Exception):
    """A new factor is cheaper or safer than what an increment would take, or the only way."""


@dataclass(frozen=True)
class Then:
    """The scatter that was factored, without its square."""

    centres: Centres
    spread: float  # mean of the square's diagonal
    energy: float  # mean over features of Σ z²

    @property
    def middle(self) -> Tensor:
        """The mean of the means, (width,)."""
        return self.centres.means.mean(0)


@dataclass(frozen=True)
class Increment:
    """A scatter a few samples later. All float64.

    Its directions are rows: the means then less their mean, and each sample since less its class's mean then.
    """

    then: Then
    now: Centres
    directions: Tensor  # (directions, width)
    places: Tensor  # (labels now, directions): μ − mean of the means then = places @ directions
    change: Tensor  # (directions, directions): V − V₀ = directionsᵀ @ change @ directions
    spread: float  # mean of V's diagonal
    energy: float  # mean over features of Σ z², now

    def same_level(self, mean_then: float, mean: float) -> float:
        """Give the level of both means of a diagonal; raises Dear where it is another now."""
        found = level(mean, self.energy)
        if found != level(mean_then, self.then.energy):
            raise Dear
        return found


def directions_of(then: Then, moved: Moved) -> Tensor:
    """Give the directions (n, width) of some samples; those of a class that was not there go by the mean of means."""
    place = {label: row for row, label in enumerate(then.centres.label_ids)}
    known = [(row, place[label]) for row, label in enumerate(moved.label_ids) if label in place]
    origins = then.middle.repeat(len(moved.label_ids), 1)
    origins[[row for row, _ in known]] = then.centres.means[[at for _, at in known]]
    return moved.rows - origins


def increment(then: Then, now: Centres, since: Sequence[Moved], directions: Tensor) -> Increment:
    """Tell the scatter whose centres are `now`; `directions` are the means' and those of `since`, in that order."""
    width, old = directions.shape[1], len(then.centres.label_ids)
    signed = torch.cat([then.centres.weights[:0], *(moved.weights for moved in since)])  # (few,)
    place = {label: row for row, label in enumerate(now.label_ids)}
    shares = torch.zeros(len(now.label_ids), len(signed), dtype=torch.float64)  # s_i of a class's own
    since_ids = [label for moved in since for label in moved.label_ids]
    own = [(place[label], column) for column, label in enumerate(since_ids) if label in place]
    rows, columns = [row for row, _ in own], [column for _, column in own]
    shares[rows, columns] = signed[columns]
    places = torch.zeros(len(now.label_ids), len(directions), dtype=torch.float64)
    stayed = [(place[label], row) for row, label in enumerate(then.centres.label_ids) if label in place]
    places[[row for row, _ in stayed], [at for _, at in stayed]] = 1.0
    places[:, old:] = shares / now.weights[:, None]
    change = torch.zeros(len(directions), len(directions), dtype=torch.float64)
    change[old:, old:] = signed.diag() - places[:, old:].T @ shares
    energy = then.energy + sum(moved.energy for moved in since) / width
    spread = energy - float(now.weights @ now.means.square().sum(1)) / width
    return Increment(then, now, directions, places, change, spread, energy)
