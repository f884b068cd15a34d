"""Long tensor operations in parts, with a stop between them; what they compute stays the same.

Called by `Courtesy` while predictions come beside an update. One convolution over a batch takes up to 30 ms,
which nothing can stop. Cut by channels or by samples, each number is still the sum of the same terms, only how
many of them an operation computes changes: where it was looked at, the bits were the same. It costs about a tenth more.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

PRODUCTS = 150_000_000
"""Multiplications in a part: about 3 ms of one core."""

NUMBERS = 1_000_000
"""Numbers in a part of what is no product: 1 to 3 ms."""

POOLED = NUMBERS // 2  # of a pooling that remembers places

_BLOCK = 16  # channels, which kernels compute side by side
_PICTURES = 4  # dimensions: (batch, channels, height, width)

Parts = list[tuple[Any, ...]]  # the arguments of each
Join = Callable[[list[Any]], Any]
Plan = tuple[Parts, Join]

_ATEN = torch.ops.aten


def in_parts(between: Callable[[], None], func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Give func(*args, **kwargs), computed in parts with a call of `between` after each but the last if it is long."""
    cut = _CUTS.get(func)
    plan = cut(*args) if cut is not None and not kwargs else None
    if plan is None or len(plan[0]) < 2:
        return func(*args, **kwargs)
    parts, join = plan
    results: list[Any] = []
    for part in parts:
        if results:
            between()
        results.append(func(*part))
    return join(results)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, *rest: Any) -> Plan | None:
    """By output channels."""
    transposed, groups = rest[2], rest[4]
    if transposed or groups != 1 or x.dim() != _PICTURES:
        return None
    places = x.shape[2] // stride[0] * (x.shape[3] // stride[-1])
    cuts = _slices(len(weight), len(x) * places * weight.numel() / PRODUCTS)
    parts: Parts = [(x, weight[cut], None if bias is None else bias[cut], stride, *rest) for cut in cuts]
    return parts, lambda made: torch.cat(made, 1)


def _convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, bias_sizes: Any, *rest: Any) -> Plan | None:
    """By input channels; by output channels where there are few of those, and their gradient is not wanted."""
    *how, wanted = rest
    transposed, groups = how[3], how[5]
    of_input, of_weight, of_bias = wanted
    if transposed or groups != 1 or x.dim() != _PICTURES:
        return None
    places = gradient.shape[2] * gradient.shape[3]
    share = (of_input + of_weight) * len(x) * places * weight.numel() / PRODUCTS
    parts: Parts
    if weight.shape[1] > _BLOCK:
        cuts = _slices(weight.shape[1], share)
        parts = [
            (gradient, x[:, cut], weight[:, cut], bias_sizes, *how, [of_input, of_weight, of_bias and cut.start == 0])
            for cut in cuts
        ]

        def join(made: list[Any]) -> Any:
            inputs, weights, biases = zip(*made, strict=True)
            return (
                torch.cat(inputs, 1) if of_input else None,
                torch.cat(weights, 1) if of_weight else None,
                biases[0],
            )

        return parts, join
    if of_input or of_bias:
        return None
    cuts = _slices(len(weight), share)
    parts = [(gradient[:, cut], x, weight[cut], bias_sizes, *how, wanted) for cut in cuts]
    return parts, lambda made: (None, torch.cat([one[1] for one in made]), None)


def _max_pool(x: Tensor, *rest: Any) -> Plan | None:
    if x.dim() != _PICTURES:
        return None
    parts: Parts = [(part, *rest) for part in _samples(x, x.numel() / POOLED)]
    return parts, lambda made: tuple(map(torch.cat, zip(*made, strict=True)))


def _max_pool_backward(gradient: Tensor, x: Tensor, *rest: Any) -> Plan | None:
    *how, places = rest
    if x.dim() != _PICTURES:
        return None
    count = x.numel() / NUMBERS
    cut = zip(_samples(gradient, count), _samples(x, count), _samples(places, count), strict=True)
    parts: Parts = [(one, inputs, *how, where) for one, inputs, where in cut]
    return parts, torch.cat


def _threshold_backward(gradient: Tensor, x: Tensor, threshold: Any) -> Plan | None:
    if x.dim() < 2 or gradient.shape != x.shape:
        return None
    count = x.numel() / NUMBERS
    cut = zip(_samples(gradient, count), _samples(x, count), strict=True)
    parts: Parts = [(one, inputs, threshold) for one, inputs in cut]
    return parts, torch.cat


_CUTS: Mapping[Any, Callable[..., Plan | None]] = MappingProxyType(
    {
        _ATEN.convolution.default: _convolution,
        _ATEN.convolution_backward.default: _convolution_backward,
        _ATEN.max_pool2d_with_indices.default: _max_pool,
        _ATEN.max_pool2d_with_indices_backward.default: _max_pool_backward,
        _ATEN.threshold_backward.default: _threshold_backward,
    }
)


def _slices(channels: int, parts: float) -> list[slice]:
    """Cut channels into about so many slices of whole blocks; an odd number of channels stays together."""
    if channels % _BLOCK:
        return [slice(0, channels)]
    size = max(1, math.ceil(channels / math.ceil(max(parts, 1)) / _BLOCK)) * _BLOCK
    return [slice(start, min(start + size, channels)) for start in range(0, channels, size)]


def _samples(tensor: Tensor, parts: float) -> tuple[Tensor, ...]:
    """Cut (batch, …) into about so many parts."""
    return torch.split(tensor, max(1, math.ceil(len(tensor) / math.ceil(max(parts, 1)))))
