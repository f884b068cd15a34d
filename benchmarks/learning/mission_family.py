"""Shared and task-specific parameters at two speeds: two tasks in one family, one backbone, each with its own head.

One model tells vehicles apart, one animals, both through the same MobileNetV2. Fast: each head is solved with its own
labels. Slow: one update of the whole family moves the last blocks by the sum of both losses, distils the features
both heads stand on, and is fused with the weights before (θ = 0.3·before + 0.7·learned). Both are judged, and both go
live or neither. Before and after are of test pictures of each task.
"""

import sys

import torch
from mission_data import CIFAR, SHARED, cifar, some_of_each
from mission_row import Row, run
from mission_school import School, refusals, school

from app.networks.pretrained import read_weights_file

TASKS = {"vehicles": (0, 1, 8, 9), "animals": (2, 3, 4, 5, 6, 7)}
LABELS, TEST = 6000, 2000
RECIPE = {
    "based_on": "fine-tune",
    "optimizer": {"kind": "sgd", "lr": 0.01, "backbone_lr": 0.01},
    "fusion": {"interpolation": 0.7},
    "early_stopping": {"passes": 2},
    "schedule": {"samples": None},  # asked for by hand, once
}


def measure(row: Row) -> None:
    pictures = cifar("train", some_of_each("train", LABELS, 0, row.folder), row.folder)
    test = cifar("test", some_of_each("test", TEST, 0, row.folder), row.folder)
    tensors = read_weights_file(row.folder / "mobilenet_v2_imagenet.pth")
    with school() as teaching:
        weights = teaching.add_weights(tensors)
        for task, classes in TASKS.items():
            teaching.create(
                name=task,
                input={"kind": "image", "size": 96, "channels": 3},
                network={"architecture": "mobilenet_v2", "weights": weights},
                labels=[CIFAR[label] for label in classes],
                recipe=row.recipe or RECIPE,
                family="photos",
            )
            teaching.teach(task, [one for one in pictures if one.label in classes], CIFAR)

        def accuracies(teaching: School) -> dict[str, float]:
            return {
                task: teaching.accuracy(task, [one for one in test if one.truth in classes], CIFAR)
                for task, classes in TASKS.items()
            }

        before = accuracies(teaching)
        teaching.refine("vehicles")
        after = accuracies(teaching)
        for task in TASKS:
            newest = teaching.versions(task)[0]
            row.found(task, before=before[task], after=after[task], slow_update=newest.verdict, reason=newest.reason)
            row.must(f"{task}: no worse than a point below", after[task] >= before[task] - 1)
        row.must("together better", sum(after.values()) > sum(before.values()))
        row.found("not promoted", **{task: refusals(teaching, task) for task in TASKS})


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(run("mission: a family at two speeds", measure, SHARED))
