"""A frozen network of photographs with a new head, fed by ImageNet's own normalization: 2,000 labels of CIFAR-10.

MobileNetV2 stands in for ResNet-50, whose weights cannot be had here. The head is learned by gradient steps (a batch
of labels at a time, the rest of the network still), beside the head that is solved. Before: the first 500 labels.
"""

import sys

import torch
from mission_data import CIFAR, SHARED, cifar, some_of_each
from mission_row import Row, run
from mission_school import school

from app.networks.pretrained import read_weights_file

RECIPES = {
    "new head, SGD": {
        "head": {"kind": "softmax"},
        "trainable": "head",
        "penalties": [],
        "optimizer": {"kind": "sgd", "lr": 0.001, "momentum": 0.9},
        "trigger": {"samples": 1, "seconds": 0},
        "new_classes": {"policy": "accept"},
    },
    "new head, solved": {"based_on": "frozen-backbone", "new_classes": {"policy": "accept"}},
}


def measure(row: Row) -> None:
    pictures = cifar("train", some_of_each("train", 2000, 0, row.folder), row.folder)
    test = cifar("test", some_of_each("test", 1000, 0, row.folder), row.folder)
    tensors = read_weights_file(row.folder / "mobilenet_v2_imagenet.pth")
    with school() as teaching:
        weights = teaching.add_weights(tensors)
        for title, recipe in RECIPES.items():
            name = title.replace(", ", "-").replace(" ", "-").lower()
            teaching.create(
                name=name,
                input={"kind": "image", "size": 96, "channels": 3},
                network={"architecture": "mobilenet_v2", "weights": weights},
                labels=CIFAR,
                recipe=recipe,
            )
            untaught = teaching.accuracy(name, test, CIFAR)
            teaching.teach(name, pictures[:500], CIFAR)
            before = teaching.accuracy(name, test, CIFAR)
            teaching.teach(name, pictures[500:], CIFAR)
            after = teaching.accuracy(name, test, CIFAR)
            row.found(title, before=before, after=after, untaught=untaught, versions=teaching.verdicts(name))
            row.must(f"{title}: more labels, more right", after > before > untaught)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(run("mission: frozen backbone", measure, SHARED))
