"""A chain of plain layers as the calls that it comes down to, to the same bits, without what modules do around them.

For one input a small network takes as long for that as for its numbers. Knows nothing of versions.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.networks.standardize import Standardize

Step = Callable[[Tensor], Tensor]


class _NoChain(Exception):
    """There is a module whose call is not known here."""


def straight(network: nn.Module) -> Step | None:
    """Give what the network computes in eval mode, with its own numbers; None where it is no chain of known layers."""
    try:
        steps = list(_steps(network))
    except _NoChain:
        return None

    def run(inputs: Tensor) -> Tensor:
        for step in steps:
            inputs = step(inputs)
        return inputs

    return run


def _steps(module: nn.Module) -> Iterator[Step]:
    if _does_more(module):
        raise _NoChain
    kind = type(module)
    if isinstance(module, nn.Sequential) and kind is nn.Sequential:
        for child in module:  # `children` would leave out one that is there twice
            yield from _steps(child)
    elif kind in _STEPS:
        yield from _STEPS[kind](module)
    else:
        raise _NoChain


def _does_more(module: nn.Module) -> bool:
    """Say whether a call of the module is more than its class's `forward`."""
    hooks = module._forward_hooks or module._forward_pre_hooks  # noqa: SLF001  no public question for it
    return bool(hooks) or "forward" in vars(module)


def _linear(layer: nn.Module) -> Iterator[Step]:
    weight, bias = layer.weight, layer.bias
    yield lambda inputs: functional.linear(inputs, weight, bias)  # type: ignore[arg-type]


def _layer_norm(layer: nn.Module) -> Iterator[Step]:
    yield partial(
        functional.layer_norm,
        normalized_shape=layer.normalized_shape,  # type: ignore[arg-type]
        weight=layer.weight,  # type: ignore[arg-type]
        bias=layer.bias,  # type: ignore[arg-type]
        eps=layer.eps,  # type: ignore[arg-type]
    )


def _standardize(layer: nn.Module) -> Iterator[Step]:
    assert isinstance(layer, Standardize)
    yield layer.prepared()


def _nothing(_: nn.Module) -> Iterator[Step]:
    yield from ()


_STEPS: dict[type[nn.Module], Callable[[nn.Module], Iterator[Step]]] = {
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    Standardize: _standardize,
    nn.ReLU: lambda _: iter([torch.relu]),
    nn.Tanh: lambda _: iter([torch.tanh]),
    nn.Sigmoid: lambda _: iter([torch.sigmoid]),
    nn.Identity: _nothing,
    nn.Dropout: _nothing,
}
