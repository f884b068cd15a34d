"""Digits through a network trained on photographs: 10,000 MNIST labels in class order, one at a time, frozen features.

What is taught: 10,000 of the first 15,000 training pictures, sorted by class; a seed draws them, and the random layers.
What is asked: every second of the 10,000 test pictures. Learning rates and the joint head's weight decay are chosen on
the 5,000 training pictures left; the closed forms choose their strength from what they were taught. A head is
published every 100 labels, and all that it takes (projection, sums, choosing, solving) is in its price a sample,
processor time of one thread.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pictures
import resnet20
import torch
from findings import over_seeds, show
from torch import Tensor
from torch.nn import functional

from app.networks.projection import Projection
from worker.learning.closed_form import ClosedFormSettings, Solved, solve
from worker.learning.strength import ROWS, Choice, choose
from worker.learning.sums import Sums

TAUGHT, HELD, LABELS, PUBLISH = 10_000, 5_000, 10, 100
LEAST, MOST_MS = 98.3, 0.6
Logits = Callable[[Tensor], Tensor]
Row = dict[str, Any]


def linear(weight: Tensor, bias: Tensor) -> Logits:
    return lambda rows: functional.linear(rows, weight, bias)


def closed_form(kind: str, width: int, seed: int, x: Tensor, y: Tensor) -> tuple[Logits, int]:
    """One label at a time; memory of the sums beside the logits."""
    project: Callable[[Tensor], Tensor] = Projection(x.shape[1], width, seed=seed) if width else torch.nn.Identity()
    sums = Sums(width or x.shape[1], "resnet20")
    settings = ClosedFormSettings(kind)
    kept: list[Tensor] = []
    choice: Choice | None = None
    head: Solved | None = None
    for index in range(len(y)):
        row = project(x[index : index + 1])
        sums.add(row, [int(y[index])], backbone="resnet20")
        kept.append(row)
        if (index + 1) % PUBLISH == 0:
            if choice is None or choice.due(sums):
                chosen = torch.randperm(index + 1, generator=torch.Generator().manual_seed(0))[:ROWS]
                rows = torch.cat([kept[place] for place in chosen.tolist()])
                choice = choose(sums, settings, rows, y[chosen].tolist())
            head = solve(sums, settings, range(LABELS), strength=choice.strength, scale=choice.scale)
    assert head is not None
    weight, bias = head.weight, head.bias
    return lambda rows: functional.linear(project(rows), weight, bias), sums.nbytes


def nearest_mean(x: Tensor, y: Tensor) -> tuple[Logits, int]:
    means, counts = torch.zeros(LABELS, x.shape[1]), torch.zeros(LABELS)
    for index in range(len(y)):
        label = int(y[index])
        counts[label] += 1
        means[label] += (x[index] - means[label]) / counts[label]
    return linear(means, -means.square().sum(1) / 2), means.nbytes


def naive(lr: float, x: Tensor, y: Tensor) -> tuple[Logits, int]:
    """A linear head, one gradient step of cross-entropy a label, nothing remembered.

    Its inputs are standardised by all samples, which is more than it could know; on plain ones it ends at one class.
    """
    mean, std = x.mean(0), x.std(0) + 1e-6
    x = (x - mean) / std
    weight, bias = torch.zeros(LABELS, x.shape[1]), torch.zeros(LABELS)
    for index in range(len(y)):
        error = torch.softmax(weight @ x[index] + bias, dim=0)
        error[int(y[index])] -= 1
        weight.addr_(error, x[index], alpha=-lr)
        bias.sub_(error, alpha=lr)
    weight = weight / std
    return linear(weight, bias - weight @ mean), weight.nbytes


def joint(decay: float, x: Tensor, y: Tensor) -> tuple[Logits, int]:
    """Logistic regression on all samples at once, to the end: what the linear head could be."""
    mean, std = x.mean(0), x.std(0) + 1e-6
    rows = (x - mean) / std
    head = torch.nn.Linear(x.shape[1], LABELS)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=150, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(head(rows), y) + decay * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    weight = (head.weight / std).detach()
    return linear(weight, (head.bias - weight @ mean).detach()), x.nbytes


def accuracy(logits: Logits, rows: Tensor, targets: Tensor) -> float:
    return round(100 * float((logits(rows).argmax(1) == targets).double().mean()), 2)


def measure(seed: int, x: Tensor, y: Tensor, held: Tensor, held_y: Tensor, test: Tensor, test_y: Tensor) -> list[Row]:
    """Teach every head; a row of each."""

    def best(train: Callable[[float, Tensor, Tensor], tuple[Logits, int]], grid: tuple[float, ...]) -> float:
        return max(grid, key=lambda value: accuracy(train(value, x, y)[0], held, held_y))

    lr = best(naive, (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2))
    decay = best(joint, (1e-5, 1e-4, 3e-4, 1e-3, 3e-3))
    heads: dict[str, tuple[str, Callable[[], tuple[Logits, int]]]] = {
        "joint logistic regression": (f"weight decay {decay}", lambda: joint(decay, x, y)),
        "slda": ("", lambda: closed_form("slda", 0, seed, x, y)),
        "ridge": ("", lambda: closed_form("ridge", 0, seed, x, y)),
        **{
            f"random layer of {width} + {kind}": (
                "",
                lambda width=width, kind=kind: closed_form(kind, width, seed, x, y),
            )
            for width in (1000, 2000)
            for kind in ("slda", "ridge")
        },
        "nearest class mean": ("", lambda: nearest_mean(x, y)),
        "naive gradient steps": (f"lr {lr}", lambda: naive(lr, x, y)),
    }
    rows: list[Row] = []
    for name, (chosen, train) in heads.items():
        began = time.process_time()
        logits, size = train()
        spent = time.process_time() - began
        rows.append(
            {
                "head": name,
                "chosen": chosen,
                "held out, %": accuracy(logits, held, held_y),
                "test, %": accuracy(logits, test, test_y),
                "ms a sample": "all at once" if name.startswith("joint") else round(1000 * spent / len(y), 3),
                "state, MB": round(size / 1e6, 2),
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=pictures.SHARED)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = pictures.load("mnist", arguments.data_dir)
    network = resnet20.load(arguments.data_dir)
    began = time.process_time()
    every = resnet20.features(network, torch.cat([data.inputs[: TAUGHT + HELD], data.test_inputs[::2]]))
    forward_ms = 1000 * (time.process_time() - began) / len(every)
    train, test = every[: TAUGHT + HELD], every[TAUGHT + HELD :]
    runs = []
    for seed in range(arguments.seeds):
        drawn = torch.randperm(TAUGHT + HELD, generator=torch.Generator().manual_seed(seed))
        taught, held = drawn[:TAUGHT], drawn[TAUGHT:]
        taught = taught[data.targets[taught].argsort(stable=True)]
        runs.append(
            measure(
                seed, train[taught], data.targets[taught], train[held], data.targets[held], test, data.test_targets[::2]
            )
        )
    rows = over_seeds(runs)
    good = [row for row in rows[1:] if row["test, %"].mean >= LEAST and row["ms a sample"].mean <= MOST_MS]
    return show(
        "MNIST through a frozen CIFAR ResNet-20, class order, one at a time",
        rows,
        held=bool(good),
        bound=f"one head of at least {LEAST} % for at most {MOST_MS} ms a sample, means of {arguments.seeds} seeds",
        forward_ms_a_picture=round(forward_ms, 2),
    )


if __name__ == "__main__":
    sys.exit(main())
