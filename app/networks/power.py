"""A fixed power of features between backbone and head: it draws heavy tails in.

Part of the network's forward pass, like the projection that may follow it. Nothing in it is learned, so features that
were kept stay as the backbone made them, and no order of labels can show.
"""

from torch import Tensor, nn

_NEAR_ZERO = 1e-3
"""Of a feature: keeps the slope finite where a rectifier gave zero, as it does for every second feature."""


class Power(nn.Module):
    """f = sign(z)·((|z| + ε)^p − ε^p), Tukey's power with its sign (as in Yang, Liu, Xu 2021, arXiv 2101.06395).

    A closed form takes each class's features for normal; behind a rectifier they are skewed, the less so the smaller
    the power.
    """

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, width) to (batch, width)."""
        size: Tensor = (features.abs() + _NEAR_ZERO) ** self.exponent - _NEAR_ZERO**self.exponent
        return features.sign() * size
