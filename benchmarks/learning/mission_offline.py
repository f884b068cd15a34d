"""What the same features give offline: joint multinomial logistic regression, and ridge in one go.

Called by the rows that go through the service, as their reference. Weight decay is chosen on training pictures held
out; the test pictures are asked once.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mission_data import Picture
from torch import Tensor
from torch.nn import functional

from app.networks.catalog import build
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.networks.pretrained import read_weights_file
from app.networks.spec import NetworkSpec
from app.recipe import ImageInput

SIZE = 96
DECAYS = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
_BATCH = 32


def mobilenet(weights: Path) -> Network:
    """The frozen network as the product builds it from a weights file."""
    spec = NetworkSpec("mobilenet_v2", ImageInput(size=SIZE, channels=3), weights="sha256:" + "0" * 64)
    tensors = read_weights_file(weights)
    return build(spec, {}, lambda _: tensors)


def features_of(network: Network, pictures: Sequence[Picture], cache: Path | None = None) -> Tensor:
    """What the backbone makes of the pictures, (n, width) float32; kept in the folder `cache` where there is one."""
    name = hashlib.sha256(b"".join(hashlib.sha256(one.content).digest() for one in pictures)).hexdigest()[:24]
    kept = cache / f"{network.spec.architecture}-{SIZE}-{name}.pt" if cache else None
    if kept is not None and kept.is_file():
        return torch.load(kept, weights_only=True)
    preprocessor = preprocessor_for(network.spec)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(pictures), _BATCH):
            items = [preprocessor.decode(one.content) for one in pictures[start : start + _BATCH]]
            rows.append(network.raw_features(preprocessor.batch(items)))
    found = torch.cat(rows).clone()
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(found, kept)
    return found


@dataclass(frozen=True)
class Logistic:
    """A fitted head: features are brought to mean 0 and deviation 1 of the training features first."""

    mean: Tensor
    deviation: Tensor
    weight: Tensor  # (classes, width)
    bias: Tensor
    decay: float

    def answers(self, features: Tensor) -> Tensor:
        scaled = (features - self.mean) / self.deviation
        return (scaled @ self.weight.T + self.bias).argmax(1)


def logistic(features: Tensor, labels: Tensor, decay: float, classes: int) -> Logistic:
    """Fit all samples jointly: mean cross-entropy + decay/2 · ‖W‖², to its minimum by L-BFGS."""
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
    scaled = (features - mean) / deviation
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=150, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(scaled @ weight.T + bias, labels) + decay / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return Logistic(mean, deviation, weight.detach(), bias.detach(), decay)


def chosen_decay(features: Tensor, labels: Tensor, classes: int, seed: int = 0) -> float:
    """The decay that answers a fifth of the training samples best after learning the others (their given labels)."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    held, taught = order[: len(order) // 5], order[len(order) // 5 :]

    def accuracy(decay: float) -> float:
        fitted = logistic(features[taught], labels[taught], decay, classes)
        return float((fitted.answers(features[held]) == labels[held]).float().mean())

    return max(DECAYS, key=accuracy)


def recalls(answers: Tensor, truth: Tensor, classes: Sequence[int]) -> list[float]:
    """Share of each class answered right."""
    return [float((answers[truth == label] == label).float().mean()) for label in classes]
