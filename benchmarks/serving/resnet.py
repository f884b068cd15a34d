"""The networks that the benchmarks of serving ask: torchvision's as they are, with random weights."""

from torch import nn
from torchvision import models


def resnet18(classes: int) -> nn.Module:
    return models.resnet18(num_classes=classes)


def resnet50(classes: int) -> nn.Module:
    return models.resnet50(num_classes=classes)
