"""Labels as people gave them, 9, 17 and 40 % of them wrong: CIFAR-10N in class order, by the worker beside offline.

The same pictures and features as in `pretrained_stream.py`; the worker, its stores and its gate in this process, a
claim of 256 labels at a time. Features are computed once for all rows and put where the worker keeps them. The
reference is a joint logistic regression on the same wrong labels, its weight decay chosen on held-out training
pictures, by their wrong labels too. Tested by what the pictures truly are. A seed draws the pictures, and each model
draws for itself which of them it holds out.
"""

import hashlib
import sys
from collections.abc import Sequence
from typing import Any

import torch
from findings import over_seeds
from mission_data import CIFAR, NOISES, SHARED, Picture, by_label, cifar, some_of_each
from mission_offline import SIZE, chosen_decay, features_of, logistic, mobilenet
from mission_row import Row, run
from mission_school import School, refusals, school
from torch import Tensor

from app.networks.network import Network
from app.networks.pretrained import read_weights_file

CLAIM = 256
LABELS, TEST = 10_000, 2000
BOUND = 1.0  # points below offline
NAMES = (None, *NOISES)


def measure(row: Row) -> None:
    test = cifar("test", some_of_each("test", TEST, 0, row.folder), row.folder)
    weights = row.folder / "mobilenet_v2_imagenet.pth"
    network = mobilenet(weights)
    asked = features_of(network, test, row.cache)
    truth = torch.tensor([one.truth for one in test])
    runs: list[list[dict[str, Any]]] = []
    for seed in range(row.seeds):
        chosen = some_of_each("train", LABELS, seed, row.folder)
        pictures = cifar("train", chosen, row.folder)
        features = features_of(network, pictures, row.cache)
        at = {one.place: index for index, one in enumerate(pictures)}
        found: list[dict[str, Any]] = []
        with school(CLAIM) as teaching:
            digest = teaching.add_weights(read_weights_file(weights))
            for noise in NAMES:
                taught = by_label(cifar("train", chosen, row.folder, noise))
                rows = features[[at[one.place] for one in taught]]
                found.append(_taught(teaching, digest, noise or "clean", taught, rows, asked, truth, row.recipe))
                print(f"seed {seed}: {found[-1]}", file=sys.stderr)
        runs.append(found)
    for figures in over_seeds(runs):
        name = figures.pop("labels")
        row.found(f"{name} labels", **figures)
        held = figures["service"].mean >= figures["offline"].mean - BOUND
        row.must(f"{name}: service >= offline - {BOUND:g}, means of {row.seeds} seeds", held)


def _taught(
    teaching: School,
    digest: str,
    name: str,
    taught: Sequence[Picture],
    rows: Tensor,
    asked: Tensor,
    truth: Tensor,
    recipe: Any,
) -> dict[str, Any]:
    """One set of labels: the service beside offline."""
    labels = torch.tensor([one.label for one in taught])
    decay = chosen_decay(rows, labels, len(CIFAR))
    offline = logistic(rows, labels, decay, len(CIFAR)).answers(asked)
    teaching.create(
        name=name,
        input={"kind": "image", "size": SIZE, "channels": 3},
        network={"architecture": "mobilenet_v2", "weights": digest},
        recipe=recipe or "frozen-backbone",
    )
    _remember(teaching, name, [one.content for one in taught], rows)
    teaching.teach(name, taught, CIFAR)
    return {
        "labels": name,
        "wrong": _percent(labels, torch.tensor([one.truth for one in taught]), wrong=True),
        "service": _percent(_answers(teaching, name, asked), truth),
        "offline": _percent(offline, truth),
        "decay": str(decay),
        "samples": str(teaching.states(name)),
        "versions": str(teaching.verdicts(name)),
        "not promoted because": str(refusals(teaching, name)),
    }


def _remember(teaching: School, name: str, contents: list[bytes], rows: Tensor) -> None:
    """Put features where the worker keeps those that its backbone made."""
    model = teaching.registry.model(name)
    _, backbone = teaching.loader.backbone_of(teaching.live(name))
    values = [row.numpy().astype("<f4").tobytes() for row in rows]
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    teaching.features.write(model.id, backbone, dict(zip(digests, values, strict=True)))


def _answers(teaching: School, name: str, features: Tensor) -> Tensor:
    """What live's head makes of features."""
    network: Network = teaching.network(name)
    names = {label.id: label.name for label in teaching.registry.labels(teaching.registry.model(name).id)}
    places = torch.tensor([CIFAR.index(names[label]) for label in network.spec.labels])
    with torch.inference_mode():
        return places[network.head(network.fed(features)).argmax(1)]


def _percent(answers: Tensor, truth: Tensor, *, wrong: bool = False) -> float:
    right = 100 * float((answers == truth).float().mean())
    return round(100 - right if wrong else right, 2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(run("noisy labels", measure, SHARED, seeds=3))
