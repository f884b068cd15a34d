"""Real handwritten digits, taught a few at a time, on the learner alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from worker.learning.learner import Learner
from worker.learning.samples import Samples
from worker.learning.settings import LearnerSettings

datasets = pytest.importorskip("sklearn.datasets")

WARM = LearnerSettings()
COLD = replace(WARM, passes=60, patience=9)


class Digits:
    def __init__(self) -> None:
        pictures, labels = datasets.load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        self.pictures = (torch.tensor(pictures, dtype=torch.float32) / 8 - 1)[order]
        self.labels = torch.tensor(labels)[order]
        self.keys = torch.rand(len(labels), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def samples(self, indices: Tensor) -> Samples:
        return Samples(list(self.pictures[indices]), self.labels[indices], self.keys[indices])

    def accuracy(self, network: nn.Module) -> float:
        """On 500 digits that are never taught."""
        with torch.inference_mode():
            return float((network(self.pictures[-500:]).argmax(1) == self.labels[-500:]).float().mean())


def untaught() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def teach(digits: Digits, order: Tensor, claim: int) -> list[float]:
    network, state, accuracies = untaught(), None, []
    for start in range(0, len(order), claim):
        settings = replace(COLD if start < 96 else WARM, seed=start, penalties=() if start == 0 else WARM.penalties)
        memory = digits.samples(order[:start]) if start else None
        new = digits.samples(order[start : start + claim])
        learned = Learner(settings).learn(network, new=new, memory=memory, state=state)
        network, state = learned.network, learned.state
        accuracies.append(digits.accuracy(network))
    return accuracies


def test_thirty_two_labels_already_help_and_five_hundred_make_ninety_percent() -> None:
    accuracies = teach(Digits(), torch.arange(512), claim=32)
    assert accuracies[0] > 0.6
    assert accuracies[-1] >= 0.9


def test_classes_that_come_one_after_the_other_are_not_forgotten() -> None:
    digits = Digits()
    order = torch.argsort(digits.labels[:512], stable=True)
    assert teach(digits, order, claim=64)[-1] >= 0.88
