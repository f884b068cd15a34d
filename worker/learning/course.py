"""One run of the learner, from the first step to the weights that are kept.

Called by the learner. Holds what changes from step to step: the module, its optimizer, the best weights so far.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor, nn

from worker.learning.augmentation import augmented
from worker.learning.averaging import AveragedWeights
from worker.learning.ewc import EWC, as_state
from worker.learning.failure import LearningStopped
from worker.learning.fold import early_stopping_fold
from worker.learning.fold_score import FoldScore
from worker.learning.normalization import moving_statistics
from worker.learning.optimizers import Slots, make_optimizer, rates
from worker.learning.penalties import make_penalty
from worker.learning.penalty import Origins
from worker.learning.priors import logit_offsets
from worker.learning.record import LearningRecord
from worker.learning.rehearsal import Rehearsal
from worker.learning.samples import Samples, chunks
from worker.learning.settings import LearnerSettings
from worker.learning.stepper import Mixture, Stepper

_BATCH = 64  # of what is neither a step nor the fold
_LEAST_GAIN = 1e-4  # of the fold's loss; less is noise


class Course:
    """One run of the learner: what changes from step to step."""

    def __init__(
        self,
        *,
        settings: LearnerSettings,
        device: torch.device,
        module: nn.Module,
        origins: Origins,
        pool: Samples,
        new: int,
        should_stop: Callable[[], bool],
        groups: Tensor | None = None,
    ) -> None:
        pool = pool.made_ready()
        self.settings, self.device, self.module, self.pool, self.new = settings, device, module, pool, new
        self.should_stop = should_stop
        self.named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
        self.optimizer = make_optimizer(self.named, settings.optimizer, origins.head, origins.state)
        origins = replace(origins, rates=rates(self.named, settings.optimizer, origins.head))
        self.penalties = [make_penalty(module, origins, penalty) for penalty in settings.penalties]
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.fold = early_stopping_fold(pool.targets, pool.keys, settings.fold)
        inside = set(self.fold)
        self.fresh = [index for index in range(new) if index not in inside]
        remembered = [index for index in range(new, len(pool)) if index not in inside]
        self.remembered = remembered
        self.rehearsal = Rehearsal(remembered, pool.targets, self.generator)
        self.stepper = Stepper(
            module,
            self.optimizer,
            self.penalties,
            settings.rehearsal,
            settings.clip_norm,
            seen=torch.unique(pool.targets[new:]),
            batch_statistics=settings.batch_statistics,
            groups=groups,
        )
        self.stepper.offsets = self._offsets()
        self.fold_new = [index for index in self.fold if index < new]
        self.score = FoldScore(module, pool, self.fold, new, device, groups)
        vectors = self.optimizer.weights.vectors
        self.average = AveragedWeights([*vectors, *self._statistics()], settings.averaging)

    def run(self) -> LearningRecord:
        """Pass after pass until the fold's loss no longer falls; leave the best (averaged) weights in the module.

        The fold chooses among passes, the first one included whatever it says: whether learning helped at all is the
        gate's question, and a fold of five samples would too often answer no (digits taught 32 at a time: +1 point).
        """
        score, accuracy_before = self._judge()
        accuracy, best_pass, best = accuracy_before, 0, self._snapshot() if self.fold else None
        fold_losses, train_losses = [score] if self.fold else [], []
        for number in range(1, self.settings.passes + 1 if self._steps_in_a_pass() else 1):
            train_losses.append(self._pass(self._batches()))
            if not self.fold:
                best_pass = number
                continue
            loss, now = self._judge()
            fold_losses.append(loss)
            if number == 1 or loss < score - _LEAST_GAIN:
                score, accuracy, best_pass, best = loss, now, number, self._snapshot()
            elif number - best_pass >= self.settings.patience:
                break
        if best is None:
            self.average.settle()
        else:
            self._restore(best)
        fold_learned = best is not None and best_pass > 0 and self._learn_the_fold(score, best)
        rows = self.pool.targets[self.fold]
        return LearningRecord(
            new=self.new,
            memory=len(self.pool) - self.new,
            passes=len(train_losses),
            best_pass=best_pass,
            steps=self.stepper.steps,
            train_losses=tuple(round(loss, 6) for loss in train_losses),
            fold_losses=tuple(round(loss, 6) for loss in fold_losses),
            fold_size=len(self.fold),
            fold_accuracy_before=accuracy_before,
            fold_accuracy=accuracy,
            majority_accuracy=int(rows.bincount().max()) / len(rows) if self.fold else None,
            fold_learned=fold_learned,
            resumed=self.optimizer.resumed,
            seconds=0.0,
        )

    def state(self) -> dict[str, Tensor]:
        """What the next update may carry on from, with the weights as they are now."""
        state = self.optimizer.export_state()
        for penalty in self.penalties:
            if isinstance(penalty, EWC):
                state |= as_state(penalty.consolidated(self.module, self._evidence(penalty.settings.samples)))
        return state

    def moved(self) -> list[str]:
        """Names of the tensors that may have moved: weights that learn, BatchNorm's statistics."""
        inside = {id(tensor) for tensor in (*self.named.values(), *self._statistics())}
        return [name for name, tensor in self.module.state_dict(keep_vars=True).items() if id(tensor) in inside]

    def release(self) -> None:
        """Give the weights back to their module, when nothing more is to be learned."""
        self.optimizer.weights.release()

    def _statistics(self) -> list[Tensor]:
        moving = moving_statistics(self.module) if self.settings.batch_statistics else []
        return [buffer for one in moving for buffer in one.buffers() if buffer.is_floating_point()]

    def _evidence(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of at most so many of all samples, drawn at random."""
        drawn = torch.randperm(len(self.pool), generator=self.generator)[:count].tolist()
        for indices in chunks(drawn, _BATCH):
            inputs, targets = self.pool.batch(indices)
            yield inputs.to(self.device), targets.to(self.device)

    def _steps_in_a_pass(self) -> int:
        if not self.fresh:
            return self.settings.steps_per_pass if len(self.rehearsal) else 0
        return max(math.ceil(len(self.fresh) / self.settings.batch_size), self.settings.steps_per_pass)

    def _offsets(self) -> Tensor | None:
        """Raise what is drawn too rarely, unless the loss has its own way; None without samples to learn from."""
        new, rehearsed = self._shares()
        share = self.stepper.share(new, rehearsed)
        if share is None or not new or not rehearsed:
            return None
        targets = self.pool.targets
        return logit_offsets(targets[self.fresh], targets[self.remembered], share, self._rows()).to(self.device)

    def _rows(self) -> int:
        self.module.eval()
        with torch.inference_mode():
            return int(self.module(self.pool.batch([0])[0].to(self.device)).shape[1])

    def _shares(self) -> tuple[int, int]:
        """New and remembered samples of a batch: as many remembered as new ones, more where that fills it up."""
        new = min(self.settings.batch_size, len(self.fresh))
        return new, max(new, self.settings.batch_size - new) if len(self.rehearsal) else 0

    def _batches(self) -> Iterator[tuple[list[int], list[list[int]]]]:
        """New samples in a shuffled round, each batch with at least as many remembered ones, filled up to its size."""
        size, rehearsed = self._shares()
        queue: list[int] = []
        for _ in range(self._steps_in_a_pass()):
            if len(queue) < size:
                queue += [self.fresh[p] for p in torch.randperm(len(self.fresh), generator=self.generator).tolist()]
            batch, queue = queue[:size], queue[size:]
            yield batch, [self.rehearsal.draw(rehearsed) for _ in range(self.stepper.draws)]

    def _pass(self, batches: Iterator[tuple[list[int], list[list[int]]]]) -> float:
        losses = []
        for new, draws in batches:
            if self.should_stop():
                raise LearningStopped
            losses.append(self._step(new, draws))
            self.average.follow()
        return sum(losses) / len(losses)

    def _step(self, new: Sequence[int], draws: Sequence[Sequence[int]]) -> float:
        draws = [draw for draw in draws if draw]
        indices = list(chain(new, *draws))
        inputs, targets = self.pool.batch(indices)
        inputs = augmented(inputs, self.settings.augmentation, self.generator).to(self.device)
        logits = self.pool.remembered(indices)
        return self.stepper.move(
            Mixture(
                inputs,
                targets.to(self.device),
                len(new),
                tuple(len(draw) for draw in draws),
                None if logits is None else logits.to(self.device),
                len(set(indices)),
            )
        )

    def _judge(self) -> tuple[float, float | None]:
        with self.average.shown():
            return self.score(self.stepper.offsets, self.stepper.steps)

    def _learn_the_fold(self, score: float, best: "Snapshot") -> bool:
        """One pass over the new samples that only judged so far, as many others beside them; undone if it harms."""
        if not self.fold_new:
            return False
        others = Rehearsal([*self.fresh, *self.remembered], self.pool.targets, self.generator)
        for indices in chunks(self.fold_new, self.settings.batch_size):
            if self.should_stop():
                raise LearningStopped
            rehearsed = max(len(indices), self.settings.batch_size - len(indices))
            self._step(indices, [others.draw(rehearsed) for _ in range(self.stepper.draws)])
        self.average.restart()  # so few steps are kept as they are
        if self._judge()[0] <= score:
            return True
        self._restore(best)
        return False

    def _snapshot(self) -> "Snapshot":
        buffers = [buffer.clone() for buffer in self.module.buffers()]
        return Snapshot(self.average.copy(), buffers, self.optimizer.copy_slots())

    @torch.no_grad()
    def _restore(self, snapshot: "Snapshot") -> None:
        for buffer, kept in zip(self.module.buffers(), snapshot.buffers, strict=True):
            buffer.copy_(kept)
        self.average.settle(snapshot.average)
        self.optimizer.restore_slots(snapshot.slots)


@dataclass(frozen=True)
class Snapshot:
    average: list[Tensor]
    buffers: list[Tensor]
    slots: list[Slots]
