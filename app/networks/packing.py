"""A network of convolutions rewritten for the processor: what it computes is the same but for the rounding.

BatchNorm goes into the convolution before it, the ReLU after a convolution is done by it, and weights are laid out as
oneDNN wants them, once instead of at each call. Works on a traced copy: the network given, which others hold, stays as
it was, and shares with the copy what was not rewritten. Called by `Execution`, which tries the result before it
serves. Knows nothing of versions.
"""

import copy
from collections import Counter
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval

Convolution = Callable[[nn.Conv2d, list[int], bool], nn.Module]
"""Makes what stands in a convolution's place, from it, its input's shape, and whether a ReLU follows."""


def packed(network: nn.Module, inputs: Tensor, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Give the network with weights in oneDNN's own layout; the soonest for one input, and in bfloat16 for any.

    `inputs` is a batch of the size that it is to be soonest for. Raises what tracing and running a network made
    for something else raises.
    """
    graph = _folded(network)
    if dtype != torch.float32:
        graph = copy.deepcopy(graph).to(dtype)  # the layers that were not rewritten are the network's own
    _replace_convolutions(graph, inputs.to(dtype), _Packed)
    return Cast(_Traced(graph), dtype)


def blocked(network: nn.Module, inputs: Tensor) -> nn.Module:
    """Give the network with all that it passes on in oneDNN's own layout, too; the soonest for many inputs.

    Raises as `packed` does, for a network with any step that cannot take that layout.
    """
    graph = _folded(network)
    _replace_convolutions(graph, inputs, _Blocked)
    return _InBlocks(_Traced(graph))


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


class _Traced(nn.Module):
    """What a traced network does, without its graph: that is a cycle, and would keep weights until it is collected."""

    def __init__(self, graph: fx.GraphModule) -> None:
        """Take over the layers; the graph is of no use afterwards."""
        super().__init__()
        self._run = type(graph).forward
        for name, child in list(graph.named_children()):
            self.add_module(name, child)
            delattr(graph, name)
        for name, parameter in list(graph.named_parameters(recurse=False)):
            self.register_parameter(name, parameter)
            delattr(graph, name)
        for name, buffer in list(graph.named_buffers(recurse=False)):
            self.register_buffer(name, buffer)
            delattr(graph, name)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self._run(self, inputs)
        return outputs


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


def _folded(network: nn.Module) -> fx.GraphModule:
    """Trace the network, in eval mode, and put each BatchNorm into the convolution that feeds it alone."""
    tracer = fx.Tracer()
    graph = fx.GraphModule(network, tracer.trace(network))
    tracer.root, tracer.submodule_paths = nn.Module(), {}  # it is part of a cycle, and would hold the network
    modules, calls = dict(graph.named_modules()), _calls(graph)
    for node in list(graph.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        before = node.args[0]
        convolution = modules.get(str(before.target)) if before.op == "call_module" else None
        if type(convolution) is nn.Conv2d and len(before.users) == calls[before.target] == 1:
            graph.set_submodule(str(before.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(before)
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


@torch.no_grad()
def _replace_convolutions(graph: fx.GraphModule, inputs: Tensor, make: Convolution) -> None:
    ShapeProp(graph).propagate(inputs)
    modules, calls = dict(graph.named_modules()), _calls(graph)
    for node in list(graph.graph.nodes):
        convolution = modules.get(str(node.target)) if node.op == "call_module" else None
        if type(convolution) is not nn.Conv2d or calls[node.target] > 1:
            continue
        shape = list(cast("torch.Size", node.args[0].meta["tensor_meta"].shape))
        after = next(iter(node.users), None)
        relu = len(node.users) == 1 and after is not None and _is_relu(after, modules)
        graph.set_submodule(str(node.target), make(convolution, shape, relu))
        if relu and after is not None:
            after.replace_all_uses_with(node)
            graph.graph.erase_node(after)
    graph.delete_all_unused_submodules()
    graph.recompile()


def _calls(graph: fx.GraphModule) -> Counter[object]:
    return Counter(node.target for node in graph.graph.nodes if node.op == "call_module")


def _is_relu(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return type(modules.get(str(node.target))) is nn.ReLU
    return node.op == "call_function" and node.target in {torch.relu, nn.functional.relu}
