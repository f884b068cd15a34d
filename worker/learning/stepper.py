"""One gradient step: samples in, weights moved.

Called by the course for every step of an update, and directly by whoever teaches a stream by hand. Knows nothing of
passes, folds or where a batch comes from; the weights that move are those its optimizer holds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.learning.failure import LearningFailed
from worker.learning.held_weights import HeldWeights
from worker.learning.normalization import set_training, statistics_move
from worker.learning.optimizers import Optimizer
from worker.learning.penalty import Penalty, Step
from worker.learning.rehearsal_losses import REHEARSAL_LOSSES, Answers
from worker.learning.settings import RehearsalSettings

_ER = RehearsalSettings()


@dataclass(frozen=True)
class Batch:
    """Samples that are ready, on the network's device."""

    inputs: Tensor  # (batch, …) float32
    targets: Tensor  # (batch,) int64, rows of the head
    logits: Tensor | None = None  # (batch, rows then) as they were remembered; NaN where a row did not exist


@dataclass(frozen=True)
class Mixture:
    """All samples of a step, ready, on the network's device: the new ones first, then each draw from the memory."""

    inputs: Tensor  # (batch, …) float32
    targets: Tensor  # (batch,) int64, rows of the head
    new: int
    draws: tuple[int, ...] = ()  # samples in each draw
    logits: Tensor | None = None  # (batch, rows then) as they were remembered; NaN where a row did not exist
    distinct: int | None = None  # different samples, where some may come twice

    def remembered(self) -> tuple[Tensor | None, ...]:
        """The remembered logits of each draw."""
        if self.logits is None:
            return (None,) * len(self.draws)
        return tuple(torch.split(self.logits[self.new :], list(self.draws)))


class Stepper:
    """Takes gradient steps on one module."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        penalties: Sequence[Penalty] = (),
        rehearsal: RehearsalSettings = _ER,
        clip_norm: float | None = None,
        offsets: Tensor | None = None,
        *,
        seen: Tensor | None = None,
        batch_statistics: bool = False,
        groups: Tensor | None = None,
    ) -> None:
        """Prepare steps; raises LearningFailed for a rehearsal loss the catalog has not.

        `offsets` (rows,) are added to the logits in every loss on labels. `seen` are rows for which samples came
        before the first step. `batch_statistics` lets BatchNorm's running statistics move with batches that are
        large enough; otherwise it normalizes by the statistics it has. `groups` (rows,) are the heads that rows belong
        to where there are several: see `groups`. Between steps the module may be put into eval
        mode as a whole.
        """
        if rehearsal.kind not in REHEARSAL_LOSSES:
            raise LearningFailed(
                f"There is no rehearsal loss {rehearsal.kind!r}; choose one of {', '.join(REHEARSAL_LOSSES)}."
            )
        self._module, self._optimizer = module, optimizer
        self._weights = optimizer.weights
        self._pulls = [penalty.over(self._weights) for penalty in penalties if isinstance(penalty, HeldWeights)]
        self._penalties = [penalty for penalty in penalties if not isinstance(penalty, HeldWeights)]
        self._loss = REHEARSAL_LOSSES[rehearsal.kind](rehearsal, seen)
        self._clip_norm = math.inf if clip_norm is None else clip_norm
        self.offsets, self._batch_statistics = offsets, batch_statistics
        self.groups = groups
        self._moving: bool | None = None
        self.steps = 0
        self.new_logits: Tensor | None = None

    @property
    def draws(self) -> int:
        """How many batches from the memory each step wants; with an empty memory it takes none."""
        return self._loss.draws

    def share(self, new: int, memory: int) -> float | None:
        """How much of the loss on labels the new ones of so many samples weigh; None where it evens classes out."""
        return self._loss.share(new, memory)

    def step(self, new: Batch | None, memory: Sequence[Batch] = ()) -> float:
        """Do what `move` does, with new samples and draws from the memory that are still apart."""
        parts = [*([new] if new is not None else []), *memory]
        inputs, targets = (torch.cat(part) for part in zip(*((one.inputs, one.targets) for one in parts), strict=True))
        draws = tuple(len(one.targets) for one in memory)
        fresh = len(targets) - sum(draws)
        logits = _remembered(memory, fresh) if any(one.logits is not None for one in memory) else None
        return self.move(Mixture(inputs, targets, fresh, draws, logits))

    def move(self, batch: Mixture) -> float:
        """Move the weights once and give the loss before it, penalties included.

        All samples go through the module in one forward pass. What it gave for the new ones, (new, rows), stands in
        `new_logits` afterwards. Raises LearningFailed when the loss or its gradient is not finite; the weights have
        not moved then.
        """
        inputs, targets = batch.inputs, batch.targets
        self._set_training(batch.distinct or len(targets))
        self._weights.clear()
        logits: Tensor = self._module(inputs)  # (batch, rows)
        self.new_logits = logits[: batch.new].detach()
        loss = self._loss(
            Answers(logits, targets, batch.new, batch.draws, batch.remembered(), self.offsets, self.groups)
        )
        step = Step(inputs, targets, logits)
        for penalty in self._penalties:
            loss = loss + penalty(step)
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach()) + sum(float(pull()) for pull in self._pulls)
        norm = self._weights.clip(self._clip_norm)
        if not (math.isfinite(value) and math.isfinite(norm)):
            require_finite(inputs)
            raise LearningFailed(
                f"In step {self.steps + 1} the loss was {value:g} and its gradient's norm {norm:g}: "
                "lower the learning rate or look for samples with extreme numbers."
            )
        self._optimizer.step()
        self.steps += 1
        return value

    def _set_training(self, distinct: int) -> None:
        move = statistics_move(batch=distinct, statistics=self._batch_statistics)
        if move is not self._moving or not self._module.training:  # walking a deep network costs as much as a layer
            set_training(self._module, move=move)
            self._moving = move


def _remembered(memory: Sequence[Batch], fresh: int) -> Tensor:
    """Stack what was remembered below rows for the new samples; NaN where there is nothing."""
    widest = max(one.logits.shape[1] for one in memory if one.logits is not None)
    rows = memory[0].inputs.new_full((fresh + sum(len(one.targets) for one in memory), widest), math.nan)
    start = fresh
    for one in memory:
        if one.logits is not None:
            rows[start : start + len(one.targets), : one.logits.shape[1]] = one.logits
        start += len(one.targets)
    return rows


def require_finite(tensor: Tensor, what: str = "inputs") -> None:
    """Raise LearningFailed if some sample's numbers (batch, …) are not finite."""
    odd = int((~tensor.flatten(1).isfinite().all(1)).sum())
    if odd:
        raise LearningFailed(
            f"The {what} of {odd} of {len(tensor)} samples in a batch hold NaN or infinite numbers: withdraw those "
            "samples, or correct what prepares them."
        )
