"""One adapter over torchvision's classifiers: any of its networks that ends in a Linear layer.

From base weights a network is taken as it stands. From random weights it is fitted to what it will see: its stem
to small pictures, its normalisation to small batches.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from app.errors import InvalidNetwork
from app.networks.backbone import Backbone, cut
from app.networks.spec import NetworkSpec
from app.recipe import ImageInput

NAMES = (
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_v2_s",
    "mnasnet1_0",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "regnet_y_400mf",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "swin_t",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "vit_b_16",
    "vit_b_32",
    "wide_resnet50_2",
)
"""Those whose last layer is a Linear and that answer with one tensor, by torchvision's own names."""

SMALL = 64
"""Pictures up to this size get a fitted stem."""

_CLASSES = 1000


def torchvision_classifier(name: str) -> Callable[[NetworkSpec], Backbone]:
    """Give the constructor of torchvision's classifier of this name."""

    def construct(spec: NetworkSpec) -> Backbone:
        if not isinstance(spec.input, ImageInput):
            raise InvalidNetwork(f'"{name}" takes images, not features. Choose "mlp".')
        network = _bare(name, spec.input.size)
        if spec.weights is None:
            if spec.input.size <= SMALL:
                _fit_stem(name, network)
            _group_norms(network)
        if spec.input.channels == 1:
            _grey_stem(network)
        return cut(network, spec.input, _CLASSES)

    return construct


def _bare(name: str, size: int) -> nn.Module:
    with torch.device("cpu"):  # what the library makes for itself must be real, whatever is being built
        import torchvision  # noqa: PLC0415  it takes five seconds, which most models need not wait for

    if name.startswith("vit_"):
        patch = int(name.rsplit("_", 1)[1])
        if size % patch:
            raise InvalidNetwork(
                f'"{name}" cuts pictures into {patch} × {patch} patches; size {size} is no multiple of {patch}.'
            )
        return cast("nn.Module", torchvision.models.get_model(name, weights=None, image_size=size))
    return cast("nn.Module", torchvision.models.get_model(name, weights=None))


def _fit_stem(name: str, network: nn.Module) -> None:
    """Keep small pictures from vanishing: the first convolution keeps their size, the pool after it goes.

    The form that is usual for CIFAR (He et al. 2015, arXiv 1512.03385, section 4.2). VGG has no stem: its pools
    over 1 × 1 go, and so do its two layers of 4096, which 7 × 7 maps need and small pictures do not have.
    """
    if name.startswith("vgg"):
        features = cast("nn.Sequential", network.features)
        features[-1] = nn.Identity()
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier = nn.Sequential(nn.Linear(512, _CLASSES))
        return
    if name.startswith(("vit", "swin")):
        return
    stem = _first_convolution(network)
    if name.startswith(("resnet", "resnext", "wide_resnet", "densenet")):
        _swap(network, stem, kernel_size=3, stride=1, padding=1)
    elif name.startswith("convnext"):
        _swap(network, stem, kernel_size=2, stride=2, padding=0)
    else:
        stem.stride = (1, 1)
    if isinstance(getattr(network, "maxpool", None), nn.MaxPool2d):
        network.maxpool = nn.Identity()
    if name.startswith("densenet"):
        cast("nn.Module", network.features).pool0 = nn.Identity()


def _group_norms(network: nn.Module) -> None:
    """Put GroupNorm (Wu, He 2018, arXiv 1803.08494) in the place of each BatchNorm, at least 8 channels a group.

    BatchNorm needs running statistics of large mixed batches, which a network that begins with a handful of
    labels never sees; only one that brings such statistics keeps it.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm):
                channels = child.num_features
                groups = max(g for g in range(1, 33) if channels % g == 0 and (g == 1 or channels // g >= 8))
                setattr(parent, name, nn.GroupNorm(groups, channels))


def _grey_stem(network: nn.Module) -> None:
    _swap(network, _first_convolution(network), in_channels=1)


def _first_convolution(network: nn.Module) -> nn.Conv2d:
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


def _swap(network: nn.Module, old: nn.Conv2d, **changes: int) -> None:
    """Replace a convolution by a fresh one that differs in what is given, drawn as torchvision draws its own."""
    form: dict[str, Any] = {
        "in_channels": old.in_channels,
        "kernel_size": old.kernel_size,
        "stride": old.stride,
        "padding": old.padding,
    }
    new = nn.Conv2d(out_channels=old.out_channels, bias=old.bias is not None, **{**form, **changes})
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)
