"""The network for vectors of numbers: standardise, then two hidden layers."""

from torch import nn

from app.errors import InvalidNetwork
from app.networks.backbone import Backbone
from app.networks.spec import NetworkSpec
from app.networks.standardize import Standardize
from app.recipe import FeaturesInput

HIDDEN = 128
WIDTH = 64


def mlp(spec: NetworkSpec) -> Backbone:
    """Map (batch, size) on raw scales to (batch, 64).

    LayerNorm, since it learns nothing from the other rows of a batch: small and one-sided batches do no harm.
    """
    if not isinstance(spec.input, FeaturesInput):
        raise InvalidNetwork('"mlp" takes features, not images. Choose "small_cnn" or a torchvision classifier.')
    size = spec.input.size
    network = nn.Sequential()
    network.add_module("standardize", Standardize(size))
    network.add_module("hidden", nn.Sequential(nn.Linear(size, HIDDEN), nn.LayerNorm(HIDDEN), nn.ReLU()))
    network.add_module("out", nn.Sequential(nn.Linear(HIDDEN, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU()))
    return Backbone(network, WIDTH)
