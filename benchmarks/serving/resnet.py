"""The network that the benchmarks of serving ask: torchvision's ResNet-18 as it is, with random weights."""

from torch import nn
from torchvision.models import resnet18


def build(classes: int) -> nn.Module:
    return resnet18(num_classes=classes)
