"""A pretrained network behind the service: 10,000 labels in class order, one a request, beside all of them offline.

MobileNetV2 (ImageNet) stays frozen, the head is solved by the fast lane with every claim (the recipe
`frozen-backbone` as it stands); then one slow update (`fine-tune`) moves the last blocks. The reference is a joint
multinomial logistic regression on the same features, its weight decay chosen on training pictures held out. Shown
beside the labels the service learned (it holds a tenth out to judge versions with) and beside all that were posted.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mission_client import Pupil, add_weights, latencies
from mission_data import CIFAR, SHARED, Picture, by_label, cifar, some_of_each
from mission_offline import SIZE, chosen_decay, features_of, logistic, mobilenet, recalls
from torch import Tensor

from app.cli.instance import Instance
from app.continual_metrics import forgetting

WEIGHTS = "mobilenet_v2_imagenet.pth"
FINE_TUNE = {
    "based_on": "fine-tune",
    "penalties": [{"kind": "l2_sp", "anchor": "previous", "strength": 0.01}],
    "optimizer": {"kind": "sgd", "lr": 0.01, "backbone_lr": 0.003},
    "fusion": {"interpolation": 1.0},
    "early_stopping": {"passes": 2},
    "schedule": {"samples": None},  # asked for by hand, once
}
LATE = 400  # labels posted at a steady pace, at the end
A_SECOND = 20.0


def stages(pupil: Pupil, taught: Sequence[Picture], test: Sequence[Picture]) -> tuple[list[list[float | None]], float]:
    """Teach class after class; after each, what is answered right of each class so far. Seconds are of teaching."""
    table: list[list[float | None]] = []
    seconds = 0.0
    for label in range(len(CIFAR)):
        began = time.monotonic()
        pupil.teach_all([one for one in taught if one.label == label])
        pupil.settle()
        seconds += time.monotonic() - began
        asked = [one for one in test if one.truth <= label]
        answers = pupil.answers(asked)
        truth = torch.tensor([one.truth for one in asked])
        now = recalls(torch.tensor(answers), truth, range(label + 1))
        table.append([*now, *[None] * (len(CIFAR) - 1 - label)])
        print(f"{CIFAR[label]}: {statistics.fmean(now):.3f} of {label + 1} classes, {seconds:.0f} s", file=sys.stderr)
    return table, seconds


def refitted(features: Tensor, labels: Tensor, asked: Tensor, truth: Tensor, decay: float) -> list[list[float | None]]:
    """The same table by a joint head fitted anew after each class."""
    table: list[list[float | None]] = [[1.0, *[None] * (len(CIFAR) - 1)]]  # one class is always right
    for label in range(1, len(CIFAR)):
        there = labels <= label
        answers = logistic(features[there], labels[there], decay, label + 1).answers(asked[truth <= label])
        known = recalls(answers, truth[truth <= label], range(label + 1))
        table.append([*known, *[None] * (len(CIFAR) - 1 - label)])
    return table


def mean(row: Sequence[float | None]) -> float:
    return statistics.fmean(one for one in row if one is not None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=SHARED)
    parser.add_argument("--labels", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--cache", type=Path, help="keep the offline features in this folder from run to run")
    parser.add_argument("--recipe", type=json.loads, default=FINE_TUNE, help="of the slow update, as JSON")
    parser.add_argument("--worker-nice", default="10", help="0 where other work on the machine starves the worker")
    parser.add_argument("--log", type=Path, help="copy the service's log here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.data_dir
    chosen = some_of_each("train", arguments.labels + LATE, 0, folder)
    taught = by_label(cifar("train", chosen[LATE:], folder))
    late = cifar("train", chosen[:LATE], folder)
    test = cifar("test", some_of_each("test", arguments.test, 0, folder), folder)
    found = through_the_service(arguments, taught, late, test)
    learned = found.pop("learned")

    network = mobilenet(folder / WEIGHTS)
    features, asked = (features_of(network, part, arguments.cache) for part in (taught, test))
    labels, truth = torch.tensor([one.label for one in taught]), torch.tensor([one.truth for one in test])
    decay = chosen_decay(features, labels, len(CIFAR))
    kept = torch.tensor([one.place in learned for one in taught])
    joint = logistic(features, labels, decay, len(CIFAR)).answers(asked)
    of_learned = logistic(features[kept], labels[kept], decay, len(CIFAR)).answers(asked)
    anew = refitted(features[kept], labels[kept], asked, truth, decay)
    table = found.pop("table")
    fast, slow = found["fast"], found["fast + slow"]
    reference = round(100 * float((of_learned == truth).float().mean()), 2)
    excess = 100 * ((forgetting(table) or 0.0) - (forgetting(anew) or 0.0))
    samples = found["samples"]
    held = {
        "no label refused": set(samples) <= {"learned", "held_out"},
        "fast >= joint - 0.5": fast >= reference - 0.5,
        "fast + slow >= joint": slow >= reference,
        "forgetting in excess <= 2": excess <= 2,
    }
    result = {
        "benchmark": "pretrained stream",
        **found,
        "joint, the labels learned": reference,
        "joint, all labels posted": round(100 * float((joint == truth).float().mean()), 2),
        "weight decay": decay,
        "forgetting": round(100 * (forgetting(table) or 0.0), 2),
        "forgetting, joint refitted": round(100 * (forgetting(anew) or 0.0), 2),
        "forgetting in excess": round(excess, 2),
        "stages": [round(100 * mean(row), 2) for row in table],
        "stages, joint refitted": [round(100 * mean(row), 2) for row in anew],
        "holds": held,
    }
    for name, value in result.items():
        print(f"{name}: {value}", file=sys.stderr)
    print(json.dumps(result))
    return 0 if all(held.values()) else 1


def through_the_service(
    arguments: argparse.Namespace, taught: Sequence[Picture], late: Sequence[Picture], test: Sequence[Picture]
) -> dict[str, Any]:
    """Everything over HTTP, in a folder of its own."""
    settings = {"PERENNIAL_WORKER_SCHEDULING": "nice", "PERENNIAL_WORKER_NICE": arguments.worker_nice}
    with (
        tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder,
        Instance(Path(folder) / "data", settings=settings) as instance,
    ):
        pupil = Pupil(instance, "photos")
        weights = add_weights(instance, arguments.data_dir / WEIGHTS)
        pupil.create(
            input={"kind": "image", "size": SIZE, "channels": 3},
            network={"architecture": "mobilenet_v2", "weights": weights},
        )
        table, seconds = stages(pupil, taught, test)
        truth = [one.truth for one in test]
        fast = statistics.fmean(map(int.__eq__, pupil.answers(test), truth))
        learned = pupil.learned()
        summary = pupil.summary()
        began = time.monotonic()
        version = pupil.refine(arguments.recipe)
        refining = time.monotonic() - began
        slow = statistics.fmean(map(int.__eq__, pupil.answers(test), truth))
        times = sorted(latencies(pupil, late, A_SECOND))
        if arguments.log:
            arguments.log.write_bytes(instance.log_file.read_bytes())
        return {
            "labels": len(taught),
            "fast": round(100 * fast, 2),
            "fast + slow": round(100 * slow, 2),
            "table": table,
            "learned": learned,
            "seconds of teaching": round(seconds, 1),
            "seconds of the slow update": round(refining, 1),
            "slow update": {key: version[key] for key in ("verdict", "reason")}
            | {"learning": version["metrics"].get("learning"), "seconds": version["metrics"].get("seconds")},
            **summary,
            "label to live, s": {
                "p50": round(times[len(times) // 2], 3),
                "p99": round(times[int(0.99 * (len(times) - 1))], 3),
                "labels": len(times),
            }
            if times
            else None,
        }


if __name__ == "__main__":
    sys.exit(main())
