"""What an architecture's constructor gives, and how a whole classifier is cut into backbone and head.

One cut serves torchvision's classifiers and the user's own networks alike: the head is found by running the
network, so no list of attribute names is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from app.errors import InvalidNetwork
from app.recipe import FeaturesInput, ImageInput

FAILURES = (RuntimeError, AttributeError, TypeError, ValueError, LookupError, ArithmeticError, AssertionError)
"""What a network's own code raises on inputs that it was not made for."""


@dataclass(frozen=True)
class Backbone:
    """A module that maps a batch to (batch, width), and the name its head had in the network it was cut from."""

    module: nn.Module
    width: int
    head_name: str | None = None


def example(shape: ImageInput | FeaturesInput, batch: int = 2) -> Tensor:
    """Make a batch of the input's shape, the same always and not constant: float32 in about ±1."""
    generator = torch.Generator().manual_seed(batch)
    sizes = (shape.channels, shape.size, shape.size) if isinstance(shape, ImageInput) else (shape.size,)
    return torch.rand(batch, *sizes, generator=generator, device="cpu") * 2 - 1


@torch.no_grad()
def cut(network: nn.Module, shape: ImageInput | FeaturesInput, classes: int) -> Backbone:
    """Take the head off: the last Linear in execution order whose output is the network's output.

    The network must map a batch of the input to (batch, classes). It is changed in place: an Identity stands where
    the head was, so the other names in its state stay as they were. InvalidNetwork says what does not fit.
    A network on the meta device, which has no numbers, is cut by its shapes alone.
    """
    inputs = example(shape).to(_device_of(network))
    name, head, fed, logits = _run(network, inputs)
    if logits.shape != (2, classes):
        raise InvalidNetwork(
            f"A batch {_sizes(inputs)} gave an output {_sizes(logits)}; expected (2, {classes}): one row an item, "
            "one logit a label."
        )
    if head is None or fed is None:
        raise InvalidNetwork(
            "The output is not what a torch.nn.Linear gave. End forward() with one Linear layer and return its "
            "logits as they are, without softmax, scaling or a dict around them."
        )
    if fed.dim() != 2:
        raise InvalidNetwork(
            f"The last Linear is fed {_sizes(fed)}; expected (batch, width). Flatten or pool before it."
        )
    _replace(network, name)
    try:
        features = network(inputs)
    except FAILURES as error:
        raise InvalidNetwork(
            f"Without its last layer {name!r} the network does not run ({error}). forward() may only call that "
            "layer, not read its weight or sizes."
        ) from error
    if not isinstance(features, Tensor) or not _alike(features, fed):
        raise InvalidNetwork(
            f"Without its last layer {name!r} the network does not give that layer's input. "
            "Return the layer's output directly from forward(), and use no randomness in eval mode."
        )
    return Backbone(network, fed.shape[1], name)


def _run(network: nn.Module, inputs: Tensor) -> tuple[str, nn.Linear | None, Tensor | None, Tensor]:
    """Run once in eval mode; give the head's name, the head, what it was fed, and the output."""
    calls: list[tuple[str, nn.Linear, Tensor, Tensor]] = []

    def note(name: str) -> Any:
        def hook(module: nn.Linear, given: Sequence[Tensor], output: Tensor) -> None:
            calls.append((name, module, given[0], output))

        return hook

    linears = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(note(name)) for name, module in linears]
    network.eval()
    try:
        output = network(inputs)
    except FAILURES as error:
        raise InvalidNetwork(
            f"The network does not take a batch {_sizes(inputs)}: {error}. Choose an architecture made for this "
            "input, or another input size."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(output, Tensor):
        raise InvalidNetwork(f"forward() gave a {type(output).__name__}; expected one tensor of logits.")
    for name, module, fed, result in reversed(calls):
        if _one_memory(result, output) and result.shape == output.shape:
            if sum(call[1] is module for call in calls) > 1:
                break
            return name, module, fed, output
    return "", None, None, output


def _replace(network: nn.Module, name: str) -> None:
    """Put an Identity where the named layer stands, under each name that it has."""
    if not name:
        raise InvalidNetwork("The network is a single Linear layer. Put it into a Sequential(Flatten(), Linear(…)).")
    head = network.get_submodule(name)
    for parent in list(network.modules()):
        for child_name, child in list(parent.named_children()):
            if child is head:
                setattr(parent, child_name, nn.Identity())


def _device_of(network: nn.Module) -> torch.device:
    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _one_memory(one: Tensor, other: Tensor) -> bool:
    return one is other if one.is_meta else one.data_ptr() == other.data_ptr()


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape if one.is_meta else torch.equal(one, other)


def _sizes(tensor: Tensor) -> str:
    return "(" + ", ".join(map(str, tensor.shape)) + ")"
