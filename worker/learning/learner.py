"""The learner: a network, its learner state, new and remembered samples → a better network.

Called by the worker's update. Knows modules and tensors; nothing of versions, labels' names, files or queues.
It composes what the other files of this folder hold: penalties, rehearsal, fold, optimizer, BatchNorm's care.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from worker.learning.course import Course
from worker.learning.failure import LearningFailed, LearningStopped
from worker.learning.optimizers import State
from worker.learning.record import LearningRecord
from worker.learning.samples import Samples, chunks, stack
from worker.learning.settings import LearnerSettings

_FEATURE_BATCH = 256


@dataclass(frozen=True)
class Learned:
    network: nn.Module  # on the CPU, in eval mode
    state: dict[str, Tensor]
    record: LearningRecord


class Learner:
    """Learns by gradient steps; has no state of its own, so one serves all updates."""

    def __init__(self, settings: LearnerSettings, device: torch.device | str = "cpu") -> None:
        self.settings = settings
        self.device = torch.device(device)

    def learn(
        self,
        network: nn.Module,
        *,
        new: Samples,
        memory: Samples | None = None,
        parent: nn.Module | None = None,
        state: State | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Learned:
        """Learn `new` while rehearsing `memory`; the inputs stay as they are.

        `parent` is what penalties hold on to: the network before it grew (`network` itself when left out).
        On the CPU the same inputs and seed give bit-equal weights. Raises LearningFailed for numbers that are not
        finite, LearningStopped when `should_stop` says so between two steps.
        """
        started = time.monotonic()
        memory = memory if memory is not None else Samples.none(new.collate)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.settings.seed)
            result = copy.deepcopy(network).to(self.device)
            pool = new.followed_by(memory)
            module, anchor = result, parent if parent is not None else network
            if self.settings.trainable == "head":
                module, anchor = _head(result), _head(anchor)
                pool = self._features(result, pool, should_stop)
            course = Course(
                settings=self.settings,
                device=self.device,
                module=module,
                anchor=anchor,
                pool=pool,
                new=len(new),
                state=state,
                should_stop=should_stop,
            )
            record = course.run()
        _require_finite(module)
        result.to("cpu").eval()
        return Learned(result, course.state(), replace(record, seconds=round(time.monotonic() - started, 3)))

    def _features(self, network: nn.Module, pool: Samples, should_stop: Callable[[], bool]) -> Samples:
        """What a backbone that stands still makes of the samples: computed once, not once a pass."""
        features: Callable[[Tensor], Tensor] = getattr(network, "features", None) or network.get_submodule("backbone")
        network.eval()
        rows: list[Tensor] = []
        with torch.no_grad():
            for indices in chunks(range(len(pool)), _FEATURE_BATCH):
                if should_stop():
                    raise LearningStopped
                rows.extend(features(pool.batch(indices)[0].to(self.device)).cpu().unbind())
        return Samples(rows, pool.targets, pool.keys, stack, pool.logits)


def _head(network: nn.Module) -> nn.Module:
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Module) or not isinstance(getattr(network, "backbone", None), nn.Module):
        raise LearningFailed("To learn the head alone, the network needs a `backbone` and a `head`.")
    return head


def _require_finite(module: nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise LearningFailed(f"{name!r} holds numbers that are not finite after learning: lower the learning rate.")
