"""The network for vectors of numbers that a head alone is to tell apart: standardise, and nothing more."""

from torch import nn

from app.errors import InvalidNetwork
from app.networks.backbone import Backbone
from app.networks.spec import NetworkSpec
from app.networks.standardize import Standardize
from app.recipe import FeaturesInput


def linear(spec: NetworkSpec) -> Backbone:
    """Map (batch, size) on raw scales to (batch, size), standardised.

    There is nothing to learn but the head, which a closed form solves exactly; the spec's projection gives it more
    to tell classes apart by.
    """
    if not isinstance(spec.input, FeaturesInput):
        raise InvalidNetwork('"linear" takes features, not images. Choose "small_cnn" or a torchvision classifier.')
    network = nn.Sequential()
    network.add_module("standardize", Standardize(spec.input.size))
    return Backbone(network, spec.input.size)
