"""The labelled inputs an update works with, kept small in memory and made ready batch by batch.

Made by the worker's update, read by the learner. Knows nothing of files, payloads or label ids: targets are
rows of the head.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

_LITTLE = 64_000_000  # bytes
_CHUNK = 256

T = TypeVar("T")

Collate = Callable[[Sequence[Tensor]], Tensor]


def stack(items: Sequence[Tensor]) -> Tensor:
    """Join items that need no further preparation."""
    return torch.stack(list(items))


@dataclass(frozen=True)
class Samples:
    """Inputs with their rows of the head.

    `items` may stay as they were decoded (uint8 pictures); `collate` makes a ready float batch of some of them.
    `keys` are fixed numbers in [0, 1), one a sample, the same in every update that meets the sample again: they order
    the early-stopping fold, so that what is in the fold today was, mostly, in it before.
    """

    items: Sequence[Tensor] | Tensor  # a tensor (samples, …) is ready
    targets: Tensor  # (samples,) int64
    keys: Tensor  # (samples,) float64
    collate: Collate = stack
    logits: Tensor | None = None  # (samples, rows) as an earlier network gave them; NaN where it had no such row

    def __post_init__(self) -> None:
        if not len(self.items) == len(self.targets) == len(self.keys):
            raise ValueError(
                f"{len(self.items)} items, {len(self.targets)} targets and {len(self.keys)} keys: expected equally many"
            )
        if self.logits is not None and len(self.logits) != len(self.items):
            raise ValueError(f"{len(self.items)} items and logits of {len(self.logits)}: expected equally many")

    def __len__(self) -> int:
        return len(self.items)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Make the samples at `indices` ready: inputs (batch, …) float32 and rows (batch,) int64."""
        places = torch.tensor(indices, dtype=torch.int64)
        targets = self.targets.index_select(0, places)
        if isinstance(self.items, Tensor):
            return self.items.index_select(0, places), targets
        return self.collate([self.items[index] for index in indices]), targets

    def made_ready(self) -> "Samples":
        """These samples with inputs that need no more preparation, if that takes little memory; else as they are."""
        if not len(self) or isinstance(self.items, Tensor):
            return self
        if self.collate(self.items[:1]).nbytes * len(self) > _LITTLE:
            return self
        parts = [self.collate(self.items[start : start + _CHUNK]) for start in range(0, len(self), _CHUNK)]
        if len({part.shape[1:] for part in parts}) > 1:
            return self
        return replace(self, items=torch.cat(parts), collate=stack)

    def remembered(self, indices: Sequence[int]) -> Tensor | None:
        """Give the remembered logits of the samples at `indices`, (batch, rows)."""
        return None if self.logits is None else self.logits[list(indices)]

    def followed_by(self, other: "Samples") -> "Samples":
        """These samples, then the others; both must be prepared alike."""
        return Samples(
            items=[*self.items, *other.items],
            targets=torch.cat([self.targets, other.targets]),
            keys=torch.cat([self.keys, other.keys]),
            collate=self.collate if len(self) else other.collate,
            logits=self._logits_with(other),
        )

    def _logits_with(self, other: "Samples") -> Tensor | None:
        if self.logits is None and other.logits is None:
            return None
        rows = max(part.logits.shape[1] for part in (self, other) if part.logits is not None)
        joined = torch.full((len(self) + len(other), rows), float("nan"))
        for part, start in ((self, 0), (other, len(self))):
            if part.logits is not None:
                joined[start : start + len(part), : part.logits.shape[1]] = part.logits
        return joined

    @classmethod
    def none(cls, collate: Collate = stack) -> "Samples":
        return cls([], torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64), collate)


def chunks(indices: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut `indices` into runs of at most `size`."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
