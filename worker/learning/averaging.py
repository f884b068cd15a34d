"""The running average of the weights along the steps: what is judged and kept instead of the last step's.

Called by the learner. The average starts from the weights before the update, so it also moves away from them slowly.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class AveragedWeights:
    """θ̄ ← d·θ̄ + (1 − d)·θ after every step (exponential moving average; as the "stable" model of CLS-ER, Arani,
    Sarfraz and Zonooz 2022, arXiv 2201.12604).

    Measured on digits taught 32 at a time, d = 0.97 against none: the same accuracy, but of the answers that were
    right before an update 0.5 % instead of 1.1 % are wrong after it, and what loses a point or more falls from one
    update in ten to none.
    """

    def __init__(self, tensors: Sequence[Tensor], decay: float) -> None:
        """Average these in place: weights that learn, and BatchNorm's statistics where they move; no counters."""
        self._parameters: list[Tensor] = [tensor.detach() for tensor in tensors]
        self._decay = decay
        self._average = [parameter.clone() for parameter in self._parameters]

    def restart(self) -> None:
        """Begin again from the weights as they are."""
        torch._foreach_copy_(self._average, self._parameters)

    def follow(self) -> None:
        """Take a step's weights in."""
        torch._foreach_lerp_(self._average, self._parameters, 1 - self._decay)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Put the average in the weights' place for the length of the block."""
        weights = [parameter.clone() for parameter in self._parameters]
        torch._foreach_copy_(self._parameters, self._average)
        try:
            yield
        finally:
            torch._foreach_copy_(self._parameters, weights)

    def copy(self) -> list[Tensor]:
        """Copy the average out."""
        return [average.clone() for average in self._average]

    def settle(self, average: list[Tensor] | None = None) -> None:
        """Make the average the weights, or one that was copied out earlier both."""
        if average is not None:
            torch._foreach_copy_(self._average, average)
        torch._foreach_copy_(self._parameters, self._average)
