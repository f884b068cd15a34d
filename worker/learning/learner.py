"""The learner: a network, its learner state, new and remembered samples → a better network.

Called by the worker's update. Knows modules and tensors; nothing of versions, labels' names, files or queues.
It composes what the other files of this folder hold: penalties, rehearsal, fold, optimizer, BatchNorm's care.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.learning.course import Course
from worker.learning.failure import LearningFailed, LearningStopped
from worker.learning.interpolation import interpolate
from worker.learning.optimizers import State
from worker.learning.penalty import Origins, OwnLoss
from worker.learning.record import LearningRecord
from worker.learning.samples import Samples, chunks, stack
from worker.learning.settings import LearnerSettings
from worker.learning.stepper import require_finite
from worker.learning.trainable import head_names, set_trainable

_BATCH = 256


@dataclass(frozen=True)
class Learned:
    network: nn.Module  # on the CPU, in eval mode
    state: dict[str, Tensor]
    record: LearningRecord
    logits: Tensor | None = None  # (new, rows) of the new samples by `network`, where rehearsal wants them remembered


class Learner:
    """Learns by gradient steps; has no state of its own, so one serves all updates."""

    def __init__(
        self,
        settings: LearnerSettings,
        device: torch.device | str = "cpu",
        own: Mapping[str, OwnLoss] | None = None,
    ) -> None:
        """`own` are the user's losses by name. They get the module that learns and the step."""
        self.settings = settings
        self.device = torch.device(device)
        self.own = own or {}

    def learn(
        self,
        network: nn.Module,
        *,
        new: Samples,
        memory: Samples | None = None,
        parent: nn.Module | None = None,
        pretrained: nn.Module | None = None,
        state: State | None = None,
        groups: Tensor | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Learned:
        """Learn `new` while rehearsing `memory`; the inputs stay as they are.

        `parent` is what penalties hold on to: the network before it grew (`network` itself when left out);
        `pretrained` the network before any learning, for those that hold on to that. `groups` (rows,) number the heads
        where rows are those of several: a sample is compared with rows of its own head alone. On the CPU the same
        inputs and seed give bit-equal weights. Raises LearningFailed for settings that contradict the network and for
        numbers that are not finite, LearningStopped when `should_stop` says so between two steps.
        """
        started = time.monotonic()
        memory = memory if memory is not None else Samples.none(new.collate)
        parent = parent if parent is not None else network
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.default_generator.manual_seed(
                self.settings.seed
            )  # `torch.manual_seed` leaves a note for CUDA each time
            if devices:
                torch.cuda.manual_seed_all(self.settings.seed)
            result = copy.deepcopy(network).to(self.device)
            put_back = set_trainable(result, self.settings)
            pool, module = new.followed_by(memory), result
            if self.settings.trainable == "head":
                module, parent = _Above(result), _Above(parent)
                pool = self._features(result, pool, should_stop)
            course = Course(
                settings=self.settings,
                device=self.device,
                module=module,
                origins=Origins(
                    parent, pretrained, state if state is not None else {}, own=self.own, head=head_names(module)
                ),
                pool=pool,
                new=len(new),
                should_stop=should_stop,
                groups=groups,
            )
            with _dropout(module, self.settings.dropout):
                record = course.run()
            if self.settings.interpolation < 1:
                interpolate(module, parent, course.moved(), self.settings.interpolation)
            _require_finite(module)
            left = course.state()
            course.release()
            remember = self.settings.rehearsal.kind == "der_pp"
            logits = self._logits(module, pool, len(new)) if remember else None
        put_back()
        result.to("cpu").eval()
        seconds = round(time.monotonic() - started, 3)
        return Learned(result, left, replace(record, seconds=seconds), logits)

    def _features(self, network: nn.Module, pool: Samples, should_stop: Callable[[], bool]) -> Samples:
        """What a backbone that stands still makes of the samples: computed once, not once a pass."""
        features: Callable[[Tensor], Tensor] = getattr(network, "features", None) or network.get_submodule("backbone")
        network.eval()
        rows: list[Tensor] = []
        with torch.no_grad():
            for indices in chunks(range(len(pool)), _BATCH):
                if should_stop():
                    raise LearningStopped
                inputs = pool.batch(indices)[0].to(self.device)
                made = features(inputs)
                if not bool(made.isfinite().all()):
                    require_finite(inputs)
                    require_finite(made, "features the backbone makes")
                rows.extend(made.cpu().unbind())
        return Samples(rows, pool.targets, pool.keys, stack, pool.logits)

    def _logits(self, module: nn.Module, pool: Samples, new: int) -> Tensor:
        module.eval()
        with torch.no_grad():
            rows = [module(pool.batch(some)[0].to(self.device)).cpu() for some in chunks(range(new), _BATCH)]
        return torch.cat(rows) if rows else torch.empty(0, 0)


class _Above(nn.Module):
    """The head over features that are there already; its parameters have the names they have in the network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.head = network.get_submodule("head")
        self.training = network.training

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.head(features)
        return logits


@contextmanager
def _dropout(module: nn.Module, share: float) -> Iterator[None]:
    """Drop this share of the head's inputs while it is in training mode."""
    if not share:
        yield
        return
    names = sorted(head_names(module))
    if not names:
        raise LearningFailed("dropout: the network has no layer that could be its head; leave `dropout` out.")
    head = getattr(module, "head", None) or module.get_submodule(names[0].rpartition(".")[0])

    def drop(head: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return (functional.dropout(given[0], share, training=head.training), *given[1:])

    hook = head.register_forward_pre_hook(drop)
    try:
        yield
    finally:
        hook.remove()


def _require_finite(module: nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise LearningFailed(f"{name!r} holds numbers that are not finite after learning: lower the learning rate.")
