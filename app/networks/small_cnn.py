"""The network for small pictures, of 28 × 28 and 32 × 32 and their neighbours, that learns on a processor."""

from torch import nn

from app.errors import InvalidNetwork
from app.networks.backbone import Backbone
from app.networks.spec import NetworkSpec
from app.recipe import ImageInput

WIDTH = 128
_GROUPS = 8
_GRID = 4


def small_cnn(spec: NetworkSpec) -> Backbone:
    """Map (batch, 1 or 3, size, size) to (batch, 128), any size from 4.

    GroupNorm (Wu, He 2018, arXiv 1803.08494) instead of BatchNorm: an item's features do not depend on the batch.
    """
    if not isinstance(spec.input, ImageInput):
        raise InvalidNetwork('"small_cnn" takes images, not features. Choose "mlp".')
    network = nn.Sequential(
        *_stage(spec.input.channels, 16),
        nn.MaxPool2d(2),
        *_stage(16, 32),
        nn.MaxPool2d(2),
        *_stage(32, 64),
        nn.AdaptiveAvgPool2d(_GRID),
        nn.Flatten(),
        nn.Linear(64 * _GRID * _GRID, WIDTH),
        nn.LayerNorm(WIDTH),
        nn.ReLU(),
    )
    return Backbone(network, WIDTH)


def _stage(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.GroupNorm(_GROUPS, after), nn.ReLU()]
