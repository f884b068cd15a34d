"""A second head that forgets, for streams in which what was right last month may be wrong today.

Kept by the fast lane beside the sums that forget nothing. Knows nothing of when it serves: `better` decides that.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from worker.learning.failure import LearningFailed
from worker.learning.sums import Sums

_ARRIVED = "arrived"
_FACTOR = "factor"


class Fading:
    """Sums in which a sample weighs ρ^age, its age being how many samples arrived after it.

    Exponential forgetting of recursive least squares (Ljung 1999): about 1/(1 − ρ) samples count. Order matters here.
    A sample is taken out, or relabelled, exactly if its arrival number is known, which `add` gives: its weight today is
    ρ^(arrived − 1 − arrival). Without it the sample stays until it has faded, or the sums are rebuilt. What was taken
    out still aged the others; a rebuild from the rows that are left, numbered anew, is therefore close and not equal.
    """

    def __init__(self, width: int, backbone: str, factor: float) -> None:
        """Begin empty, forgetting by `factor` ρ a sample, 0 < ρ < 1."""
        if not 0 < factor < 1:
            raise LearningFailed(f"Forgetting is {factor}: expected more than 0 and less than 1.")
        self.factor, self.arrived = factor, 0
        self.sums = Sums(width, backbone)

    def add(self, features: Tensor, label_ids: Sequence[int], *, backbone: str) -> range:
        """Take samples in as they arrived, the oldest first: features (samples, width). Give their arrival numbers.

        Raises LearningFailed as `Sums.add` does, with nothing changed.
        """
        count = len(label_ids)
        weights = self.factor ** torch.arange(count - 1, -1, -1, dtype=torch.float64)
        self.sums.require(features, label_ids, backbone=backbone)
        self.sums.fade(self.factor**count)
        self.sums.add(features, label_ids, backbone=backbone, weights=weights)
        self.arrived += count
        return range(self.arrived - count, self.arrived)

    def subtract(self, features: Tensor, label_ids: Sequence[int], arrivals: Sequence[int], *, backbone: str) -> None:
        """Take samples out that arrived with these numbers. Raises LearningFailed as `Sums.subtract` does."""
        self.sums.subtract(features, label_ids, backbone=backbone, weights=self._weights(arrivals))

    def relabel(
        self,
        features: Tensor,
        before: Sequence[int],
        after: Sequence[int],
        arrivals: Sequence[int],
        *,
        backbone: str,
    ) -> None:
        """Give samples that arrived with these numbers another label; they stay as old as they are."""
        self.sums.relabel(features, before, after, backbone=backbone, weights=self._weights(arrivals))

    def copy(self) -> "Fading":
        """Copy it as `Sums.copy` does."""
        copied = Fading(1, self.sums.backbone, self.factor)
        copied.sums, copied.arrived = self.sums.copy(), self.arrived
        return copied

    def tensors(self) -> dict[str, Tensor]:
        """Copy the state out, for a file."""
        return {
            **self.sums.tensors(),
            _ARRIVED: torch.tensor(self.arrived),
            _FACTOR: torch.tensor(self.factor, dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Fading":
        """Read what `tensors` gave. Raises LearningFailed for another format."""
        sums = Sums.from_tensors(tensors)
        fading = cls(sums.width, sums.backbone, float(tensors[_FACTOR]))
        fading.sums, fading.arrived = sums, int(tensors[_ARRIVED])
        return fading

    def _weights(self, arrivals: Sequence[int]) -> Tensor:
        ages = self.arrived - 1 - torch.tensor(list(arrivals), dtype=torch.float64)
        if len(arrivals) and (float(ages.min()) < 0 or float(ages.max()) >= self.arrived):
            raise LearningFailed(f"An arrival number is outside 0 to {self.arrived - 1}: rebuild the sums that fade.")
        return torch.pow(torch.tensor(self.factor, dtype=torch.float64), ages)
