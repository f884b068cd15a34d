"""What a learner's step costs beside a plain PyTorch step on as many samples.

    python benchmarks/learning/step_cost.py [--networks mlp,small_cnn,resnet18] [--rounds 15]

Plain: zero_grad, forward, cross-entropy, backward and an SGD step with momentum on 64 samples in one batch (ResNet-18:
32 pictures of 64 × 64). Ours: half of them new and half remembered, with replay, penalties, clipping of the gradient
and the running average of the weights. Both take turns within each round, on one thread, and CPU time is counted, so
that what else the machine does falls out of the ratio. A whole update is the learner's, with L2-SP, from stored samples
to checked weights, over as many plain steps as it took: without a fold, and with the fold of the default settings,
whose samples are answered between the passes beside the steps. LwF runs a second network, so its row has no bound. A
table for people goes to stderr, one JSON object to stdout; the exit code is 0 if every bounded median is within 1.3.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from app.networks.catalog import build
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput, ImageInput
from worker.learning.averaging import AveragedWeights
from worker.learning.learner import Learner
from worker.learning.optimizers import OptimizerSettings, make_optimizer
from worker.learning.penalties import make_penalty
from worker.learning.penalty import Origins, PenaltySettings
from worker.learning.samples import Samples
from worker.learning.settings import LearnerSettings
from worker.learning.stepper import Batch, Stepper

BOUND = 1.3
ROWS = 10
HALF = {"mlp": 32, "small_cnn": 32, "resnet18": 16}  # new samples in a step, and as many remembered ones
UPDATES = {  # new samples, remembered ones, passes, steps in a pass
    "mlp": (64, 1000, 20, 8),
    "small_cnn": (64, 500, 5, 8),
    "resnet18": (16, 48, 1, 5),
}
FOLDS = {"whole update": 0.0, "whole update, fold": LearnerSettings().fold}
SHAPES = {
    "mlp": FeaturesInput(size=64),
    "small_cnn": ImageInput(size=32),
    "resnet18": ImageInput(size=64),
}
L2SP, EWC, LWF = PenaltySettings(), PenaltySettings("ewc", strength=100.0), PenaltySettings("lwf", strength=1.0)
PENALTIES = {"replay alone": (), "l2_sp": (L2SP,), "l2_sp + ewc": (L2SP, EWC), "l2_sp + lwf": (L2SP, LWF)}


def network(name: str) -> nn.Module:
    spec = NetworkSpec(architecture=name, input=SHAPES[name], labels=tuple(range(1, ROWS + 1)), seed=0)
    return build(spec, {}).train()


def sample_shape(name: str) -> tuple[int, ...]:
    shape = SHAPES[name]
    return (shape.size,) if isinstance(shape, FeaturesInput) else (shape.channels, shape.size, shape.size)


def plain(module: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(module.parameters(), 1e-4, momentum=0.9, foreach=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(module(inputs), targets).backward()
        optimizer.step()

    return step


def ours(
    module: nn.Module, penalties: tuple[PenaltySettings, ...], inputs: Tensor, targets: Tensor
) -> Callable[[], None]:
    named = dict(module.named_parameters())
    importance = {f"ewc:{name}": torch.rand_like(parameter) for name, parameter in named.items()}
    origins = Origins(copy.deepcopy(module), state=importance, rates=dict.fromkeys(named, 1e-4))
    optimizer = make_optimizer(named, OptimizerSettings(lr=1e-4))
    stepper = Stepper(
        module,
        optimizer,
        [make_penalty(module, origins, penalty) for penalty in penalties],
        clip_norm=5.0,
    )
    average = AveragedWeights(optimizer.weights.vectors, 0.97)
    half = len(targets) // 2
    new, memory = Batch(inputs[:half], targets[:half]), Batch(inputs[half:], targets[half:])

    def step() -> None:
        stepper.step(new, [memory])
        average.follow()

    return step


def update(name: str, module: nn.Module, fold: float) -> Callable[[], int]:
    """A whole update with replay and L2-SP, from stored samples to checked weights; gives the steps it took."""
    new, remembered, passes, steps = UPDATES[name]
    settings = LearnerSettings(
        optimizer=OptimizerSettings(lr=1e-4),
        batch_size=HALF[name],
        passes=passes,
        patience=passes,
        steps_per_pass=steps,
        fold=fold,
    )
    count = new + remembered
    inputs, targets = torch.randn(count, *sample_shape(name)), torch.arange(count) % ROWS
    keys = torch.rand(count, dtype=torch.float64)
    fresh = Samples(list(inputs[:new]), targets[:new], keys[:new])
    memory = Samples(list(inputs[new:]), targets[new:], keys[new:])
    return lambda: Learner(settings).learn(module, new=fresh, memory=memory).record.steps


def cpu_seconds(step: Callable[[], None], count: int) -> float:
    started = time.process_time()
    for _ in range(count):
        step()
    return (time.process_time() - started) / count


def measure(name: str, rounds: int) -> list[dict[str, object]]:
    torch.manual_seed(0)
    count = 2 * HALF[name]
    inputs, targets = torch.randn(count, *sample_shape(name)), torch.arange(count) % ROWS
    start = network(name)
    reference = plain(copy.deepcopy(start), inputs, targets)
    arms = {kind: ours(copy.deepcopy(start), penalties, inputs, targets) for kind, penalties in PENALTIES.items()}
    folds = {kind: fold for kind, fold in FOLDS.items() if not fold or UPDATES[name][2] > 1}
    wholes = {kind: update(name, start, fold) for kind, fold in folds.items()}
    for step in (reference, *arms.values(), *wholes.values()):
        step()
    count = max(1, min(100, int(0.15 / cpu_seconds(reference, 2))))
    ratios: dict[str, list[float]] = {kind: [] for kind in (*arms, *wholes)}
    plain_ms = []
    for _ in range(rounds):
        before = cpu_seconds(reference, count)
        found = {kind: cpu_seconds(step, count) for kind, step in arms.items()}
        for kind, whole in wholes.items():
            started = time.process_time()
            steps = whole()
            found[kind] = (time.process_time() - started) / steps
        base = (before + cpu_seconds(reference, count)) / 2
        plain_ms.append(base * 1000)
        for kind, seconds in found.items():
            ratios[kind].append(seconds / base)
    rows: list[dict[str, object]] = []
    for kind, values in ratios.items():
        low, middle, high = statistics.quantiles(values, n=4)
        bounded = "lwf" not in kind
        rows.append(
            {
                "network": name,
                "step": kind,
                "plain_ms": round(statistics.median(plain_ms), 3),
                "ratio": round(middle, 3),
                "quartiles": [round(low, 3), round(high, 3)],
                "bound": BOUND if bounded else None,
                "held": middle <= BOUND if bounded else None,
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default="mlp,small_cnn")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for name in options.networks.split(","):
        for row in measure(name, options.rounds):
            rows.append(row)
            print(
                f"{row['network']:10} {row['step']:14} plain {row['plain_ms']:>8} ms  ratio {row['ratio']:<6} "
                f"quartiles {row['quartiles']}  {'' if row['held'] is None else 'held' if row['held'] else 'NOT HELD'}",
                file=sys.stderr,
            )
    print(json.dumps({"benchmark": "step_cost", "torch": torch.__version__, "rows": rows}))
    return 0 if all(row["held"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
