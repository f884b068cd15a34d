"""ResNet-18 with a new head, held near where it started: SGD 0.001 / 0.9, crop and flip, L2-SP; then rounds that grow.

ImageNet's weights of ResNet-18 cannot be had here, so it is pretrained briefly by the product's own learner: on five
classes of CIFAR-10 at 48 px. Then the head is replaced and five other classes are taught, held towards θ₀; then come
rounds with more pictures each, held towards θ of the round before. Each round shows what the test pictures and those
of the first round get before and after it.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from mission_data import CIFAR, SHARED, Picture, cifar, some_of_each
from mission_row import Row, run
from mission_school import refusals, school
from torch import Tensor, nn

from app.networks.preprocessor import preprocessor_for
from app.networks.spec import NetworkSpec
from app.recipe import ImageInput
from worker.learning.augmentation import AugmentationSettings
from worker.learning.learner import Learner
from worker.learning.optimizers import OptimizerSettings
from worker.learning.samples import Samples
from worker.learning.settings import LearnerSettings

SIZE = 48
FIRST = CIFAR[:5]  # what it is pretrained on; the other five are taught
PRETRAINED_ON = 1500
PASSES = 6
ROUNDS = (250, 500, 750)

RECIPE: dict[str, Any] = {
    "head": {"kind": "softmax"},
    "trainable": "all",
    "optimizer": {"kind": "sgd", "lr": 0.001, "momentum": 0.9},
    "augmentation": {"crop": SIZE // 8, "flip": True},
    "memory": {"kind": "class_balanced", "capacity": 500},
    "early_stopping": {"passes": 5},
    "trigger": {"samples": 1_000_000, "seconds": 86_400},  # a round is asked for
    "new_classes": {"policy": "accept"},
}


def pretrained(pictures: Sequence[Picture]) -> dict[str, Tensor]:
    """Teach torchvision's ResNet-18 the first five classes with the product's learner; its weights."""
    import torchvision  # noqa: PLC0415  it takes five seconds

    torch.manual_seed(0)
    network: nn.Module = torchvision.models.resnet18(num_classes=len(FIRST))
    preprocessor = preprocessor_for(NetworkSpec("resnet18", ImageInput(size=SIZE), weights="imagenet"))
    samples = Samples(
        items=[preprocessor.decode(one.content) for one in pictures],
        targets=torch.tensor([one.label for one in pictures]),
        keys=torch.linspace(0, 1, len(pictures), dtype=torch.float64),
        collate=preprocessor.batch,
    )
    settings = LearnerSettings(
        optimizer=OptimizerSettings(kind="sgd", lr=0.05, momentum=0.9),
        penalties=(),
        augmentation=AugmentationSettings(SIZE // 8, flip=True),
        batch_size=64,
        passes=PASSES,
        batch_statistics=True,
    )
    learned = Learner(settings).learn(network, new=samples)
    print(f"pretrained: {learned.record.fold_accuracy} of what was kept apart", file=sys.stderr)
    return learned.network.state_dict()


def measure(row: Row) -> None:
    order = some_of_each("train", 6000, 0, row.folder)
    everything = cifar("train", order, row.folder)
    test = [one for one in cifar("test", some_of_each("test", 1000, 0, row.folder), row.folder) if one.truth >= 5]
    first = [one for one in everything if one.label < 5][:PRETRAINED_ON]
    taught = [one for one in everything if one.label >= 5][: sum(ROUNDS)]
    with school() as teaching:
        weights = teaching.add_weights(pretrained(first))
        held = {
            anchor: [{"kind": "l2_sp", "anchor": anchor, "strength": 0.01}] for anchor in ("pretrained", "previous")
        }
        teaching.create(
            name="photos",
            input={"kind": "image", "size": SIZE, "channels": 3},
            network={"architecture": "resnet18", "weights": weights},
            labels=CIFAR[5:],
            recipe={**RECIPE, "penalties": held["pretrained"]},
        )
        started = 0
        for number, count in enumerate(ROUNDS):
            pictures = taught[started : started + count]
            started += count
            before = teaching.accuracy("photos", test, CIFAR)
            teaching.teach("photos", pictures, CIFAR)
            after = teaching.accuracy("photos", test, CIFAR)
            old = teaching.accuracy("photos", taught[: ROUNDS[0]], CIFAR)
            anchor = "θ of the round before" if number else "θ₀"
            row.found(f"round {number + 1}, {count} pictures, towards {anchor}", before=before, after=after, first=old)
            row.must(f"round {number + 1}: better than before", after > before)
            teaching.change("photos", {**RECIPE, "penalties": held["previous"]})
        row.found("versions", **teaching.verdicts("photos"), not_promoted_because=refusals(teaching, "photos"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(run("mission: ResNet-18, L2-SP", measure, SHARED))
