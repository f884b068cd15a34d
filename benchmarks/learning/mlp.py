"""The small networks of the published protocols, in the product's two parts: `backbone` and `head`."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

MNIST_STANDARD = (0.1307, 0.3081)  # mean and deviation of its training pixels
_ASKED_AT_ONCE = 2_000


class MLP(nn.Module):
    """Fully connected layers with ReLU between them, 784 inputs, one output a class.

    `standard` are the mean and the deviation of a pixel where the protocol standardizes what goes in.
    """

    def __init__(
        self, *hidden: int, dropout: float = 0.0, classes: int = 10, standard: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        super().__init__()
        self.mean, self.deviation = standard
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        width = 784
        for number, following in enumerate(hidden):
            layers[f"linear{number}"] = nn.Linear(width, following)
            layers[f"relu{number}"] = nn.ReLU()
            if dropout:
                layers[f"dropout{number}"] = nn.Dropout(dropout)
            width = following
        self.backbone = nn.Sequential(layers)
        self.head = nn.Linear(width, classes)

    def features(self, inputs: Tensor) -> Tensor:
        return self.backbone((inputs - self.mean) / self.deviation)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.features(inputs))


def accuracy(network: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Percent of ready inputs (n, 784) whose highest logit is their class's."""
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        hits = sum(
            int((network(part).argmax(1) == wanted).sum())
            for part, wanted in zip(inputs.split(_ASKED_AT_ONCE), targets.split(_ASKED_AT_ONCE), strict=True)
        )
    network.train(was_training)
    return 100 * hits / len(targets)
