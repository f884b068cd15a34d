"""The user's own `nn.Module`, from a builder `build(num_classes: int) -> nn.Module` that the settings name.

The builder is called with a fixed number of classes, since its last layer is taken off and ours grows instead.
"""

import importlib
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from app.errors import InvalidNetwork
from app.networks.backbone import Backbone, cut
from app.networks.spec import NetworkSpec

Builder = Callable[[int], nn.Module]

CLASSES = 2
"""What builders are called with: the backbone must be the same however many labels come."""


def builder_at(target: str) -> Builder:
    """Import `module:function`; InvalidNetwork says what is missing."""
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise InvalidNetwork(f"{target!r} names no builder; expected module:function, such as my_pkg.models:build.")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise InvalidNetwork(
            f"The module {module_name!r} cannot be imported: {error!r}. It must be installed here or lie in the "
            "working folder."
        ) from error
    builder = getattr(module, name, None)
    if not callable(builder):
        raise InvalidNetwork(f"The module {module_name!r} has no function {name!r}.")
    found: Builder = builder
    return found


def built_by(target: str, classes: int = CLASSES) -> nn.Module:
    """Call the builder; InvalidNetwork if it fails or gives no module."""
    builder = builder_at(target)
    try:
        network = builder(classes)
    except Exception as error:
        raise InvalidNetwork(
            f"The builder {target!r} failed: {error!r}. It is called with the number of classes alone."
        ) from error
    if not isinstance(network, nn.Module):
        raise InvalidNetwork(f"The builder {target!r} gave a {type(network).__name__}; expected a torch.nn.Module.")
    return network


def penalties_of(target: str) -> Mapping[str, Callable[..., Tensor]]:
    """Give the losses that a builder brings for its network: its attribute `penalties`, name → function.

    A function gets the module that learns and the step (its inputs, targets and logits), and gives a number that is
    zero where nothing is to be held back. InvalidNetwork when the attribute is something else.
    """
    found = getattr(builder_at(target), "penalties", {})
    if not isinstance(found, Mapping) or not all(callable(one) for one in found.values()):
        raise InvalidNetwork(f"{target!r} has `penalties` that are no functions by name; expected a dict of functions.")
    return found


def user_network(target: str) -> Callable[[NetworkSpec], Backbone]:
    """Give the constructor of the network of this builder."""

    def construct(spec: NetworkSpec) -> Backbone:
        return cut(built_by(target), spec.input, CLASSES)

    return construct
