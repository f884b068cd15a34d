"""A pretrained network behind the service: 10,000 labels in class order, one a request, beside all of them offline.

MobileNetV2 (ImageNet) stays frozen, the head is solved by the fast lane with every claim (the recipe
`frozen-backbone` as it stands). Two models are taught so, one after the other, each of which draws for itself which
tenth it holds out to judge versions with; bounds are of their means. Then one slow update (`fine-tune`) moves the last
blocks of the last one. The reference is a joint multinomial logistic regression on the same features of the labels
that the model learned, its weight decay chosen on training pictures held out; shown beside all that were posted.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from findings import Spread
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


class Lesson(NamedTuple):
    """What one model was taught, and what it answered then."""

    fast: float  # percent of the test pictures
    table: list[list[float | None]]
    learned: set[int]  # places of pictures
    seconds: float
    summary: dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=SHARED)
    parser.add_argument("--labels", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--models", type=int, default=2, help="taught one after the other")
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
    lessons, found = through_the_service(arguments, taught, late, test)

    network = mobilenet(folder / WEIGHTS)
    features, asked = (features_of(network, part, arguments.cache) for part in (taught, test))
    labels, truth = torch.tensor([one.label for one in taught]), torch.tensor([one.truth for one in test])
    decay = chosen_decay(features, labels, len(CIFAR))
    references, forgotten, anew = [], [], []
    for lesson in lessons:
        kept = torch.tensor([one.place in lesson.learned for one in taught])
        tables = refitted(features[kept], labels[kept], asked, truth, decay)
        answers = logistic(features[kept], labels[kept], decay, len(CIFAR)).answers(asked)
        references.append(percent(answers, truth))
        forgotten.append(round(100 * (forgetting(lesson.table) or 0.0), 2))
        anew.append(round(100 * (forgetting(tables) or 0.0), 2))
        print(f"fast {lesson.fast}, joint {references[-1]}", file=sys.stderr)
    fast, joint = Spread([one.fast for one in lessons]), Spread(references)
    excess = Spread([round(ours - theirs, 2) for ours, theirs in zip(forgotten, anew, strict=True)])
    held = {
        "no label refused": all(set(one.summary["samples"]) <= {"learned", "held_out"} for one in lessons),
        "fast >= joint - 0.5": fast.mean >= joint.mean - 0.5,
        "fast + slow >= joint": found["fast + slow"] >= references[-1],
        "forgetting in excess <= 2": excess.mean <= 2,
    }
    result = {
        "benchmark": "pretrained stream",
        "labels": len(taught),
        "fast": fast,
        "joint, the labels learned": joint,
        "fast - joint": Spread([round(one.fast - ours, 2) for one, ours in zip(lessons, references, strict=True)]),
        "joint, all labels posted": percent(logistic(features, labels, decay, len(CIFAR)).answers(asked), truth),
        "weight decay": decay,
        "forgetting": Spread(forgotten),
        "forgetting, joint refitted": Spread(anew),
        "forgetting in excess": excess,
        "seconds of teaching": Spread([one.seconds for one in lessons]),
        "samples, versions": [one.summary for one in lessons],
        **found,
        "stages": [round(100 * mean(row), 2) for row in lessons[-1].table],
        "stages, joint refitted": [round(100 * mean(row), 2) for row in tables],
        "holds": held,
    }
    for name, value in result.items():
        print(f"{name}: {value}", file=sys.stderr)
    print(json.dumps(result))
    return 0 if all(held.values()) else 1


def percent(answers: Tensor, truth: Tensor) -> float:
    return round(100 * float((answers == truth).float().mean()), 2)


def through_the_service(
    arguments: argparse.Namespace, taught: Sequence[Picture], late: Sequence[Picture], test: Sequence[Picture]
) -> tuple[list[Lesson], dict[str, Any]]:
    """Everything over HTTP, in a folder of its own."""
    settings = {"PERENNIAL_WORKER_SCHEDULING": "nice", "PERENNIAL_WORKER_NICE": arguments.worker_nice}
    with (
        tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder,
        Instance(Path(folder) / "data", settings=settings) as instance,
    ):
        weights = add_weights(instance, arguments.data_dir / WEIGHTS)
        truth = torch.tensor([one.truth for one in test])
        lessons = []
        for number in range(arguments.models):
            pupil = Pupil(instance, f"photos-{number}")
            pupil.create(
                input={"kind": "image", "size": SIZE, "channels": 3},
                network={"architecture": "mobilenet_v2", "weights": weights},
            )
            table, seconds = stages(pupil, taught, test)
            fast = percent(torch.tensor(pupil.answers(test)), truth)
            lessons.append(Lesson(fast, table, pupil.learned(), round(seconds, 1), pupil.summary()))
        began = time.monotonic()
        version = pupil.refine(arguments.recipe)
        refining = time.monotonic() - began
        slow = percent(torch.tensor(pupil.answers(test)), truth)
        times = sorted(latencies(pupil, late, A_SECOND))
        if arguments.log:
            arguments.log.write_bytes(instance.log_file.read_bytes())
        return lessons, {
            "fast + slow": slow,
            "seconds of the slow update": round(refining, 1),
            "slow update": {key: version[key] for key in ("verdict", "reason")}
            | {"learning": version["metrics"].get("learning"), "seconds": version["metrics"].get("seconds")},
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
