"""Long tensor operations in parts, with a stop between them; what they compute stays the same.

Called by `Courtesy` while predictions come beside an update. One convolution over a batch takes up to 30 ms,
which nothing can stop. Cut by channels or by samples, each number is still the sum of the same terms, only how
many of them an operation computes changes: where it was looked at, the bits were the same. It costs about a tenth more.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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

Parts = list[Callable[[], Any]]
Join = Callable[[list[Any]], Any]
Plan = tuple[Parts, Join]

_ATEN = torch.ops.aten


def in_parts(between: Callable[[], None], func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Give func(*args, **kwargs), computed in parts with a call of `between` after each but the last if it is long."""
    cut = _CUTS.get(func)
    plan = cut(func, *args, **kwargs) if cut is not None else None
    if plan is None or len(plan[0]) < 2:
        return func(*args, **kwargs)
    parts, join = plan
    results: list[Any] = []
    for part in parts:
        if results:
            between()
        results.append(part())
    return join(results)


def _convolution(func: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, *rest: Any) -> Plan | None:
    """By output channels."""
    transposed, groups = rest[2], rest[4]
    if transposed or groups != 1 or x.dim() != _PICTURES:
        return None
    places = x.shape[2] // stride[0] * (x.shape[3] // stride[-1])
    cuts = _slices(len(weight), len(x) * places * weight.numel() / PRODUCTS)
    parts: Parts = [partial(func, x, weight[cut], None if bias is None else bias[cut], stride, *rest) for cut in cuts]
    return parts, lambda made: torch.cat(made, 1)


def _convolution_backward(
    func: Any, gradient: Tensor, x: Tensor, weight: Tensor, bias_sizes: Any, *rest: Any
) -> Plan | None:
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
        wants = [[of_input, of_weight, of_bias and cut.start == 0] for cut in cuts]
        parts = [
            partial(func, gradient, x[:, cut], weight[:, cut], bias_sizes, *how, want)
            for cut, want in zip(cuts, wants, strict=True)
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
    parts = [partial(func, gradient[:, cut], x, weight[cut], bias_sizes, *how, wanted) for cut in cuts]
    return parts, lambda made: (None, torch.cat([one[1] for one in made]), None)


def _asked(func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any) -> Plan | None:
    """A convolution where nothing learns, by samples."""
    if x.dim() != _PICTURES:
        return None
    stride = rest[0] if rest else (1, 1)
    places = x.shape[2] // stride[0] * (x.shape[3] // stride[-1])
    parts = _samples(x, len(x) * places * weight.numel() / PRODUCTS)
    return [partial(func, part, weight, bias, *rest) for part in parts], torch.cat


def _max_pool(func: Any, x: Tensor, *rest: Any) -> Plan | None:
    if x.dim() != _PICTURES:
        return None
    parts: Parts = [partial(func, part, *rest) for part in _samples(x, x.numel() / POOLED)]

    def join(made: list[Any]) -> Any:
        return torch.cat(made) if isinstance(made[0], Tensor) else tuple(map(torch.cat, zip(*made, strict=True)))

    return parts, join


def _max_pool_backward(func: Any, gradient: Tensor, x: Tensor, *rest: Any) -> Plan | None:
    *how, places = rest
    if x.dim() != _PICTURES:
        return None
    count = x.numel() / NUMBERS
    cut = zip(_samples(gradient, count), _samples(x, count), _samples(places, count), strict=True)
    parts: Parts = [partial(func, one, inputs, *how, where) for one, inputs, where in cut]
    return parts, torch.cat


def _in_place(func: Any, into: Tensor, *rest: Any, **how: Any) -> Plan | None:
    """What changes each number of a tensor by itself, by the tensor's first dimension."""
    return _along(func, into, rest, how), lambda _: into


def _in_places(func: Any, into: Sequence[Tensor], *rest: Any, **how: Any) -> Plan | None:
    """The same for tensors in a list, beside others in lists as long, or empty ones."""
    parts: Parts = []
    for number, one in enumerate(into):
        beside = [given[number] if isinstance(given, list | tuple) and given else given for given in rest]
        listed = [isinstance(given, list | tuple) and bool(given) for given in rest]
        parts += _along(partial(_of_lists, func, listed), one, beside, how)
    return (parts, lambda _: None) if len(parts) > len(into) else None


def _of_lists(func: Any, listed: Sequence[bool], into: Tensor, *rest: Any, **how: Any) -> None:
    func([into], *([one] if in_list else one for one, in_list in zip(rest, listed, strict=True)), **how)


def _made(into: Any, _: Any, x: Tensor, *rest: Any, **how: Any) -> Plan | None:
    """What computes each number of a new tensor by itself; `into` does it with a place to put it in, which is first."""
    alpha = {name: value for name, value in how.items() if name == "alpha"}
    others = [one for one in rest if isinstance(one, Tensor)]
    plain = x.is_floating_point() and all(
        one.dtype == x.dtype and (not one.dim() or one.stride() == x.stride()) for one in others
    )
    if x.numel() <= NUMBERS or not plain or any(value for name, value in how.items() if name not in alpha):
        return None
    made = torch.empty_like(x)
    return _along(into, made, (x, *rest), alpha), lambda _: made


def _copied(out: Tensor, x: Tensor) -> None:
    out.copy_(x)


def _zeroed(out: Tensor, _: Tensor) -> None:
    out.zero_()


def _with(func: Any, out: str = "out") -> Callable[..., None]:
    def into(made: Tensor, *given: Any, **how: Any) -> None:
        func(*given, **{out: made}, **how)

    return into


def _along(func: Any, first: Tensor, rest: Sequence[Any], how: Mapping[str, Any]) -> Parts:
    """Call func(first, *rest, **how) for parts of `first` and of what has its shape; a single call if it is short."""
    count = first.numel() / NUMBERS
    whole = [one for one in rest if isinstance(one, Tensor) and one.dim()]
    if count <= 1 or any(one.shape != first.shape for one in whole):
        return [partial(func, first, *rest, **how)]
    pieces = [
        _samples(one, count) if isinstance(one, Tensor) and one.dim() else itertools.repeat(one)
        for one in (first, *rest)
    ]
    return [partial(func, *piece, **how) for piece in zip(*pieces)]  # noqa: B905  some go on without end


_CUTS: Mapping[Any, Callable[..., Plan | None]] = MappingProxyType(
    {
        _ATEN.convolution.default: _convolution,
        _ATEN.convolution_backward.default: _convolution_backward,
        _ATEN.conv2d.default: _asked,
        _ATEN.max_pool2d.default: _max_pool,
        _ATEN.max_pool2d_with_indices.default: _max_pool,
        _ATEN.max_pool2d_with_indices_backward.default: _max_pool_backward,
        _ATEN.threshold_backward.default: partial(_made, _with(_ATEN.threshold_backward.grad_input, "grad_input")),
        _ATEN.relu.default: partial(_made, _with(_ATEN.relu.out)),
        _ATEN.sub.Tensor: partial(_made, _with(_ATEN.sub.out)),
        _ATEN.mul.Tensor: partial(_made, _with(_ATEN.mul.out)),
        _ATEN.clone.default: partial(_made, _copied),
        _ATEN.zeros_like.default: partial(_made, _zeroed),
        _ATEN.relu_.default: _in_place,
        _ATEN.add_.Tensor: _in_place,
        _ATEN.mul_.Tensor: _in_place,
        _ATEN.zero_.default: _in_place,
        _ATEN.copy_.default: _in_place,
        _ATEN._foreach_copy_.default: _in_places,
        _ATEN._foreach_lerp_.Scalar: _in_places,
        _ATEN._fused_sgd_.default: _in_places,
        _ATEN._fused_adam_.default: _in_places,
        _ATEN._fused_adamw_.default: _in_places,
    }
)


def _slices(channels: int, parts: float) -> list[slice]:
    """Cut channels into about so many slices of whole blocks; an odd number of channels stays together."""
    if channels % _BLOCK:
        return [slice(0, channels)]
    size = max(1, math.ceil(channels / math.ceil(max(parts, 1)) / _BLOCK)) * _BLOCK
    return [slice(start, min(start + size, channels)) for start in range(0, channels, size)]


def _samples(tensor: Tensor, parts: float) -> list[Tensor]:
    """Cut (batch, …) into about so many parts."""
    size = max(1, math.ceil(len(tensor) / math.ceil(max(parts, 1))))
    return [tensor[start : start + size] for start in range(0, len(tensor), size)]
