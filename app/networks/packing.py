"""A network of convolutions rewritten for the processor: what it computes is the same but for the rounding.

BatchNorm goes into the convolution before it, a ReLU of its own after a convolution is done by it, and weights are
laid out as oneDNN wants them, once instead of at each call. Works on a copy: the network given, which others hold,
stays as it was, and shares with the copy what was not rewritten. What feeds what is seen by running the copy once with
hooks of its own: a symbolic trace would change how every module of the process is called meanwhile, and others serve.
So a step between two layers that is no layer goes unseen: whoever calls this compares the result before it serves.
Knows nothing of versions.
"""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Convolution = Callable[[nn.Conv2d, list[int], bool], nn.Module]
"""Makes what stands in a convolution's place, from it, its input's shape, and whether a ReLU follows."""


def packed(
    network: nn.Module, inputs: Tensor, dtype: torch.dtype = torch.float32, *, batch: int | None = None
) -> nn.Module:
    """Give the network with weights in oneDNN's own layout; the soonest for one input, and in bfloat16 for any.

    It is to be soonest for batches of `batch`, or of as many as `inputs` holds, which are only run. Raises what
    running a network made for something else raises.
    """
    own = copy.deepcopy(network).to(dtype) if dtype != torch.float32 else _shared_copy(network)
    inputs = inputs.to(dtype)
    return Cast(_rewritten(own, inputs, _Packed, batch or len(inputs)), dtype)


def blocked(network: nn.Module, inputs: Tensor, *, batch: int | None = None) -> nn.Module:
    """Give the network with all that it passes on in oneDNN's own layout, too; the soonest for many inputs.

    A network with any step that cannot take that layout raises when it is run.
    """
    return _InBlocks(_rewritten(_shared_copy(network), inputs, _Blocked, batch or len(inputs)))


def folded(network: nn.Module, inputs: Tensor, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Give the network with BatchNorm in its convolutions and channels last, for devices that lay out by themselves.

    Folded in the type that the network is in and then cast. `inputs` are only run.
    """
    return cast(_rewritten(_shared_copy(network), inputs, _Folded, len(inputs)), dtype)


def cast(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Give a copy of the network in that type, channels last, that takes and gives float32."""
    own = copy.deepcopy(network).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Cast(own, dtype)


class _Folded(nn.Module):
    """A convolution, and its ReLU."""

    def __init__(self, convolution: nn.Conv2d, shape: list[int], relu: bool) -> None:
        super().__init__()
        self._convolution = convolution
        self._relu = relu

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self._convolution(inputs)
        return outputs.relu_() if self._relu else outputs


class _Packed(nn.Module):
    """A convolution, and its ReLU, over a channels_last batch."""

    def __init__(self, convolution: nn.Conv2d, shape: list[int], relu: bool) -> None:
        super().__init__()
        self._form = _form(convolution)
        self._after = "relu" if relu else "none"
        lay_out = torch.ops.mkldnn._reorder_convolution_weight  # noqa: SLF001  torch's own compiler writes these two
        self._weight = lay_out(convolution.weight.detach(), *self._form, shape)
        self._bias = None if convolution.bias is None else convolution.bias.detach()

    def forward(self, inputs: Tensor) -> Tensor:
        run = torch.ops.mkldnn._convolution_pointwise  # noqa: SLF001
        outputs: Tensor = run(inputs, self._weight, self._bias, *self._form, self._after, [], "")
        return outputs


class _Blocked(nn.Module):
    """A convolution, and its ReLU, over a batch in oneDNN's layout."""

    def __init__(self, convolution: nn.Conv2d, shape: list[int], relu: bool) -> None:
        super().__init__()
        padding, self._stride, self._dilation, self._groups = _form(convolution)
        self._padding = padding
        self._relu = relu
        lay_out: Callable[..., Tensor] = torch._C._nn.mkldnn_reorder_conv2d_weight  # noqa: SLF001  has no public name
        self._weight = lay_out(convolution.weight.detach().to_mkldnn(), *_form(convolution), shape)
        self._bias = None if convolution.bias is None else convolution.bias.detach().to_mkldnn()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = torch.conv2d(
            inputs, self._weight, self._bias, self._stride, self._padding, self._dilation, self._groups
        )
        return outputs.relu_() if self._relu else outputs


class Cast(nn.Module):
    """Takes a float32 batch and gives float32 features, whatever lies between."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self._network = network
        self._dtype = dtype

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self._network(inputs.to(self._dtype, memory_format=torch.channels_last))
        return features.float()


class _InBlocks(nn.Module):
    """Takes and gives plain tensors."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self._network(inputs.to_mkldnn())
        return features.to_dense() if features.is_mkldnn else features


def _form(convolution: nn.Conv2d) -> tuple[list[int], list[int], list[int], int]:
    if isinstance(convolution.padding, str) or convolution.padding_mode != "zeros":
        raise ValueError("a convolution that pads by name or with anything but zeros is not packed")
    return (
        list(convolution.padding),
        list(convolution.stride),
        list(convolution.dilation),
        convolution.groups,
    )


def _shared_copy(network: nn.Module) -> nn.Module:
    """Copy the modules, not their tensors."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


@dataclass(frozen=True)
class _Call:
    """A layer that ran: its name, and what went in and came out."""

    name: str
    module: nn.Module
    given: Tensor
    made: Tensor


@torch.no_grad()
def _rewritten(network: nn.Module, inputs: Tensor, make: Convolution, batch: int) -> nn.Module:
    """Put what `make` makes in the place of each convolution that runs once, with the layers that follow it alone."""
    calls = _calls(network, inputs)
    times = Counter(call.name for call in calls)
    for call in calls:
        convolution = call.module
        if type(convolution) is not nn.Conv2d or times[call.name] > 1:
            continue
        last = call
        norm = _follower(calls, last, times, nn.BatchNorm2d)
        if norm is not None:
            convolution = fuse_conv_bn_eval(convolution, norm.module)  # type: ignore[arg-type]  # it is one
            last = norm
        relu = _follower(calls, last, times, nn.ReLU)
        network.set_submodule(call.name, make(convolution, [batch, *call.given.shape[1:]], relu is not None))
        for replaced in (norm, relu):
            if replaced is not None:
                network.set_submodule(replaced.name, nn.Identity())
    return network


def _calls(network: nn.Module, inputs: Tensor) -> list[_Call]:
    """Run the network and note its layers in their order; what they made is held so long, so that none is mistaken."""
    calls: list[_Call] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, given, made: calls.append(_Call(name, module, given[0], made))

    layers = [(name, module) for name, module in network.named_modules() if not list(module.children())]
    hooks = [module.register_forward_hook(note(name)) for name, module in layers]
    changing = [module for _, module in layers if isinstance(module, nn.ReLU) and module.inplace]
    for module in changing:
        module.inplace = False  # what goes in and what comes out must be two
    try:
        network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module in changing:
            module.inplace = True
    return calls


def _follower(calls: list[_Call], call: _Call, times: Counter[str], kind: type[nn.Module]) -> _Call | None:
    """Give the layer of that kind which alone is fed by this one, and runs once; None if there is none."""
    fed = [other for other in calls if other.given is call.made]
    if len(fed) == 1 and type(fed[0].module) is kind and times[fed[0].name] == 1:
        return fed[0]
    return None
