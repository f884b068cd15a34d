"""A data set cut into experiences that come one after the other, each seen once.

Called by the protocols. Knows nothing of networks; an experience is what is taught and what is asked about it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pictures import Pictures, ready
from torch import Tensor


@dataclass(frozen=True)
class Experience:
    """Rows of `pictures`, all their pixels moved by `pixels` if given. `classes` are those that come in it."""

    pictures: Pictures
    taught: Tensor  # (n,) indices in the order they come
    asked: Tensor  # (m,) indices
    classes: tuple[int, ...]
    pixels: Tensor | None = None  # (784,)

    def batches(self, size: int, *, whole: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """Bytes (batch, 784) and classes (batch,), once through; with `whole`, a last smaller batch is left out."""
        for rows in self.taught.split(size):
            if whole and len(rows) < size:
                return
            yield self._moved(self.pictures.inputs[rows]), self.pictures.targets[rows]

    def test(self) -> tuple[Tensor, Tensor]:
        """Ready inputs (m, 784) and classes (m,)."""
        return ready(self._moved(self.pictures.test_inputs[self.asked])), self.pictures.test_targets[self.asked]

    def _moved(self, inputs: Tensor) -> Tensor:
        return inputs if self.pixels is None else inputs[:, self.pixels]


def class_pairs(pictures: Pictures, generator: torch.Generator) -> list[Experience]:
    """Five experiences of two classes each, 0 and 1 first, shuffled within."""
    experiences = []
    for first in range(0, 10, 2):
        classes = (first, first + 1)
        rows = torch.isin(pictures.targets, torch.tensor(classes)).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        asked = torch.isin(pictures.test_targets, torch.tensor(classes)).nonzero().flatten()
        experiences.append(Experience(pictures, rows, asked, classes))
    return experiences


def permutations(pictures: Pictures, count: int, generator: torch.Generator) -> list[Experience]:
    """All pictures again and again, each time with the pixels in another order (the first one permuted, too)."""
    asked = torch.arange(len(pictures.test_targets))
    return [
        Experience(
            pictures,
            torch.randperm(len(pictures.targets), generator=generator),
            asked,
            tuple(range(10)),
            torch.randperm(pictures.inputs.shape[1], generator=generator),
        )
        for _ in range(count)
    ]
