"""The rows of elastic weight consolidation on permuted MNIST, and the same network without it.

Called by `run.py`. Penalty, per-sample Fisher and soft clip are the product's; here is only the order of things:
an experience is learned, its importance is measured on some of it, the next one is learned held by the sum.
"""

from collections.abc import Iterator

import torch
from experiences import Experience, permutations
from mlp import MLP, MNIST_STANDARD, accuracy
from pictures import Pictures, ready
from protocol import Figures, Protocol
from torch import Tensor

from worker.learning.averaging import AveragedWeights
from worker.learning.ewc import EWC
from worker.learning.optimizers import OptimizerSettings, make_optimizer
from worker.learning.penalty import PenaltySettings
from worker.learning.stepper import Batch, Stepper

_FISHER_BATCH = 250


def consolidate(
    pictures: Pictures,
    seed: int,
    *,
    hidden: tuple[int, ...],
    count: int,
    batch: int,
    optimizer: str,
    lr: float,
    strength: float = 0.0,
    decay: float = 1.0,
    samples: int = 1000,
    averaging: float = 0.0,
    standard: tuple[float, float] = (0.0, 1.0),
) -> Figures:
    """All pictures, `count` times, each time permuted; the mean over all tests in the end. Strength 0: naive.

    With `averaging`, the running average of that decay is what an experience leaves: as the product's learner does.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = MLP(*hidden, standard=standard)
    experiences = permutations(pictures, count, generator)
    named = dict(network.named_parameters())
    steps = make_optimizer(named, OptimizerSettings(optimizer, lr=lr, momentum=0.0))
    settings = PenaltySettings("ewc", strength, decay=decay, samples=samples)
    importance: dict[str, Tensor] = {}
    for experience in experiences:
        penalty = EWC(network, network, importance, settings, dict.fromkeys(named, lr))
        stepper = Stepper(network, steps, [penalty] if importance else [])
        average = AveragedWeights(steps.weights.vectors, averaging) if averaging else None
        for inputs, targets in experience.batches(batch):
            stepper.step(Batch(ready(inputs), targets))
            if average is not None:
                average.follow()
        if average is not None:
            average.settle()
        if strength:
            importance = penalty.consolidated(network, _some(experience, samples))
    return {"accuracy": sum(accuracy(network, *experience.test()) for experience in experiences) / count}


def _some(experience: Experience, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first `count` of an experience, ready; they came in no particular order."""
    left = count
    for inputs, targets in experience.batches(_FISHER_BATCH):
        if left <= 0:
            return
        yield ready(inputs[:left]), targets[:left]
        left -= _FISHER_BATCH


_TWENTY = {"hidden": (100, 100), "count": 20, "batch": 128, "optimizer": "sgd", "lr": 0.1}
_FIVE = {"hidden": (256, 256), "count": 5, "batch": 128, "optimizer": "adam", "lr": 0.001}
_FIVE |= {"standard": MNIST_STANDARD}

PROTOCOLS = [
    Protocol(
        "p-mnist20-ewc-online",
        "mnist",
        consolidate,
        _TWENTY | {"strength": 10.0},
        "75.79 ± 2.25",
        75.79 - 2 * 2.25,
        grid={"strength": (1.0, 3.0, 10.0, 30.0)},
        chosen="strength: held out",
    ),
    Protocol("permuted-mnist5-naive", "mnist", consolidate, _FIVE, "86.9"),
    Protocol(
        "permuted-mnist5-ewc",
        "mnist",
        consolidate,
        _FIVE | {"strength": 25.0, "samples": 5000},
        "94.5",
        94.0,
        grid={
            "strength": (10.0, 25.0, 50.0, 100.0),
            "samples": (1000, 5000),
            "standard": ((0.0, 1.0), MNIST_STANDARD),
        },
        chosen="held out",
    ),
]
