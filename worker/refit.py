"""A network with another head, fed otherwise, or on another backbone: new objects around what both share."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from app.networks.head import Head
from app.networks.network import Network
from app.networks.projection import Projection
from worker.learning.closed_form import Solved


def with_head(network: Network, labels: Sequence[int], solved: Solved) -> Network:
    """The network with a solved head, its rows being `labels` in this order; backbone and projection are shared."""
    spec = replace(network.spec, labels=tuple(labels))
    head = Head(network.head_width, (), spec.seed)
    head.weight, head.bias = nn.Parameter(solved.weight), nn.Parameter(solved.bias)
    head.to(network.head.weight.device)
    projection = network.projection if isinstance(network.projection, Projection) else None
    return Network(spec, network.backbone, head, network.width, projection).rest()


def fed_through(network: Network, power: float | None, width: int) -> Network:
    """The network with a head of zeros, fed through that power and a projection of that width; None and 0 are none."""
    spec = replace(network.spec, power=power, projection=width)
    head = Head(width or network.width, (), spec.seed)
    head.weight = nn.Parameter(torch.zeros(len(spec.labels), width or network.width))
    head.bias = nn.Parameter(torch.zeros(len(spec.labels)))
    device = network.head.weight.device
    return Network(spec, network.backbone, head, network.width).to(device).eval()


def on_backbone(network: Network, backbone: nn.Module) -> Network:
    """The network on another backbone of the same make; its head and projection are shared."""
    projection = network.projection if isinstance(network.projection, Projection) else None
    return Network(network.spec, backbone, network.head, network.width, projection).eval()
