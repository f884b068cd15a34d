"""How well the early-stopping fold is answered, between the passes of an update.

Called by the course. Changes nothing: neither weights nor random numbers.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.learning.failure import LearningFailed
from worker.learning.groups import among_own, evened
from worker.learning.modes import answering
from worker.learning.samples import Samples, chunks
from worker.learning.stepper import require_finite

_BATCH = 256
_BATCH_BYTES = 1_000_000  # of inputs, where they are so small that more than 256 fit
_SURE_FOLD = 10  # new samples in the fold from which on they weigh as much as the remembered ones


class FoldScore:
    """Judges a module on the samples at `fold`, the `new` first ones of the pool being new."""

    def __init__(
        self,
        module: nn.Module,
        pool: Samples,
        fold: Sequence[int],
        new: int,
        device: torch.device,
        groups: Tensor | None = None,
    ) -> None:
        self._module, self._pool, self._fold, self._device = module, pool, fold, device
        size = max(_BATCH, _BATCH_BYTES // pool.items[0].nbytes) if fold else _BATCH
        self._parts = list(chunks(fold, size))
        self._kept = [self._batch(part) for part in self._parts] if isinstance(pool.items, Tensor) else None
        self._modules = list(module.modules())
        self._weights = _weights(len(fold), sum(index < new for index in fold))
        self._groups = groups

    def __call__(self, offsets: Tensor | None, steps: int) -> tuple[float, float | None]:
        """Give the fold's loss, new and remembered samples weighed against each other, and its accuracy.

        A handful of new samples would drown among hundreds of remembered ones, and then nothing new would ever look
        worth learning: the mean over the new ones counts up to half, the fewer they are the less. `steps`, for the
        message of LearningFailed, which is raised when the loss is not finite.
        """
        if not self._fold:
            return 0.0, None
        losses: list[Tensor] = []
        hits = 0
        with torch.inference_mode(), answering(self._modules):
            for inputs, targets in self._kept or map(self._batch, self._parts):
                logits = self._module(inputs)
                if self._groups is not None:
                    logits = among_own(logits, targets, self._groups)
                raised = logits if offsets is None else logits + offsets
                losses.append(functional.cross_entropy(raised, targets, reduction="none"))
                if not math.isfinite(float(losses[-1].sum())):
                    require_finite(inputs)
                    raise LearningFailed(
                        f"After step {steps} the loss on the fold is not finite: lower the learning rate."
                    )
                hits += int((logits.argmax(1) == targets).sum())
        loss = (losses[0] if len(losses) == 1 else torch.cat(losses)).cpu().double()
        if self._groups is not None:
            loss = evened(loss, self._pool.targets[list(self._fold)], self._groups)
        return float(loss @ self._weights), hits / len(self._fold)

    def _batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        inputs, targets = self._pool.batch(indices)
        return inputs.to(self._device), targets.to(self._device)


def _weights(fold: int, new: int) -> Tensor:
    """How much each loss of a fold counts, (fold,) float64 of sum 1, the new samples being the first ones."""
    share = new / max(fold, 1)
    weight = max(share, 0.5 * min(1.0, new / _SURE_FOLD)) if 0 < new < fold else share
    each = torch.empty(fold, dtype=torch.float64)
    each[:new] = weight / max(new, 1)
    each[new:] = (1 - weight) / max(fold - new, 1)
    return each
