"""How new and remembered samples make one loss, and the catalog of the ways to do it.

Called by the stepper, which has run all of a step's samples through the network at once. A loss says by `draws` how
many batches it wants from the memory in each step. It knows nothing of networks, penalties or how a memory is kept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from worker.learning.groups import among_own, evened
from worker.learning.settings import RehearsalSettings


@dataclass(frozen=True)
class Answers:
    """What the network gave in one step: `new` new samples first, then each draw from the memory."""

    logits: Tensor  # (new + draws…, rows)
    targets: Tensor  # (new + draws…,) rows of the head
    new: int
    draws: tuple[int, ...] = ()  # samples in each draw
    remembered: tuple[Tensor | None, ...] = ()  # of each draw (samples, rows then), NaN where there was no row
    offsets: Tensor | None = None  # (rows,) added to the logits wherever they are compared with labels
    groups: Tensor | None = None  # (rows,) where each row competes with those of its own group alone

    def cross_entropy(self, part: slice, shown: Tensor | None = None) -> Tensor:
        """Mean cross-entropy of these samples, or of groups the sum; only rows `shown` (rows,) take part if given."""
        logits = self.logits[part] if self.offsets is None else self.logits[part] + self.offsets
        if shown is not None:
            logits = logits.masked_fill(~shown, float("-inf"))
        if self.groups is None:
            return functional.cross_entropy(logits, self.targets[part])
        targets = self.targets[part]
        losses = functional.cross_entropy(among_own(logits, targets, self.groups), targets, reduction="none")
        return evened(losses, targets, self.groups).mean()

    def draw(self, number: int) -> slice:
        """Where the samples of this draw stand."""
        start = self.new + sum(self.draws[:number])
        return slice(start, start + self.draws[number])


class RehearsalLoss(Protocol):
    """One scalar, never negative, of new and remembered samples; without one of both it is that of the other."""

    draws: int

    def __call__(self, answers: Answers) -> Tensor: ...

    def share(self, new: int, memory: int) -> float | None:
        """How much of the loss on labels the new samples weigh; None where the loss evens out classes by itself."""
        ...


class ER:
    """Mean cross-entropy over new and remembered samples alike (Chaudhry et al. 2019, arXiv 1902.10486)."""

    draws = 1

    def __call__(self, answers: Answers) -> Tensor:
        return answers.cross_entropy(slice(None))

    def share(self, new: int, memory: int) -> float | None:
        return new / max(new + memory, 1)


class ERACE:
    """α·CE(new) + β·CE(memory), the new ones compared only with rows that are new to them (ER-ACE: Caccia et al.

    2022, arXiv 2104.05025): rows of classes among them, and rows no sample has come for yet. So what is learned of a
    new class pushes no old class away. Seen rows are kept as a set, whatever the order in which classes came. Where
    that leaves a single row, whose loss would be 0 whatever the network says, one class of the draw joins it.
    """

    draws = 1

    def __init__(self, alpha: float = 0.5, beta: float = 0.5, seen: Tensor | None = None) -> None:
        """`seen` are the rows for which samples came in earlier updates."""
        self._alpha, self._beta = alpha, beta
        self._seen: set[int] = set(seen.tolist()) if seen is not None else set()

    def __call__(self, answers: Answers) -> Tensor:
        new, memory = answers.targets[: answers.new], answers.targets[answers.new :]
        present, replayed = set(new.tolist()), memory.tolist()
        self._seen |= present | set(replayed)
        if not present or not replayed:
            return answers.cross_entropy(slice(None))
        rows = answers.logits.shape[1]
        shown = present | (set(range(rows)) - self._seen)
        if len(shown) == 1:
            shown |= set([row for row in replayed if row not in shown][:1])
        mask = torch.zeros(rows, dtype=torch.bool)
        mask[sorted(shown)] = True
        mask = mask.to(answers.logits.device)
        fresh = answers.cross_entropy(slice(answers.new), mask)
        return self._alpha * fresh + self._beta * answers.cross_entropy(slice(answers.new, None))

    def share(self, new: int, memory: int) -> float | None:
        return None if new and memory else float(new > 0)


class DERpp:
    """CE(new) + α·‖stored logits − logits‖² on one draw + β·CE on another (Buzzega et al. 2020, arXiv 2004.07211).

    The square is the mean over the logits that were stored: rows that came later (NaN, or past the last column) have
    nothing to be compared with. Without stored logits it is 0; with memory alone the loss is that on labels.
    """

    draws = 2

    def __init__(self, alpha: float = 0.5, beta: float = 0.5) -> None:
        self._alpha, self._beta = alpha, beta

    def __call__(self, answers: Answers) -> Tensor:
        if len(answers.draws) < self.draws:
            return answers.cross_entropy(slice(None))
        distance = _distance(answers.logits[answers.draw(0)], answers.remembered[0])
        loss = self._alpha * distance + self._beta * answers.cross_entropy(answers.draw(1))
        return loss + answers.cross_entropy(slice(answers.new)) if answers.new else loss

    def share(self, new: int, memory: int) -> float | None:
        if not new or not memory:
            return float(new > 0)
        return 1 / (1 + self._beta)


def _distance(logits: Tensor, stored: Tensor | None) -> Tensor:
    """Mean square over the stored logits (samples, rows then) that are numbers."""
    if stored is None or not stored.numel():
        return logits.new_zeros(())
    now = logits[:, : stored.shape[1]]
    known = ~stored.isnan()
    gaps = torch.where(known, stored, now.detach()) - now
    return gaps.square().sum() / known.sum().clamp_min(1)


Constructor = Callable[[RehearsalSettings, Tensor | None], RehearsalLoss]

REHEARSAL_LOSSES: Mapping[str, Constructor] = MappingProxyType(
    {
        "er": lambda _settings, _seen: ER(),
        "er_ace": lambda settings, seen: ERACE(settings.alpha, settings.beta, seen),
        "der_pp": lambda settings, _seen: DERpp(settings.alpha, settings.beta),
    }
)
