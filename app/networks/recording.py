"""A network's pass, recorded once as the operations that it comes down to, and run by torch's own interpreter.

Where Python runs a network it lets go of its lock for each operation and wants it back after, so threads that compute
side by side hand it to one another at each layer, and each time wait for a processor that somebody else may have
taken. A recorded pass takes the lock once, at its end. It does the same operations, so it gives the same bits, but
where torch itself does otherwise while it is watched: its encoder layer then runs unfused.

Recorded below Python, so a network may be written as it likes, as long as its steps are the same for all inputs of
one form: whatever reads a number out of a tensor to decide by it is refused. Knows nothing of versions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

SIZES = (2, 3)
"""Of the batches that are recorded: what differs between the two is what depends on their size."""

_READS = frozenset({Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.data_ptr})
"""What takes numbers out of torch unseen by its dispatcher."""

_UNLIKE = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
"""Operations after which Python may do another thing for other numbers."""

_LAYOUTS: Mapping[torch.memory_format, int] = MappingProxyType(  # as torch's interpreter knows them
    {torch.contiguous_format: 0, torch.preserve_format: 1, torch.channels_last: 2, torch.channels_last_3d: 3}
)


class Unrecordable(ValueError):
    """The network's steps depend on more than the form of its input."""


class Recording:
    """The pass of networks of one form: recorded of one of them, run with the weights of any."""

    def __init__(self, network: nn.Module, inputs: Tensor) -> None:
        """`inputs` are three or more, which are only run.

        Unrecordable, or what torch raises on what its interpreter does not know, where that cannot be.
        """
        with torch.inference_mode():
            fewer, more = (_Tape(network, inputs[:size]) for size in SIZES)
        if fewer.weights != more.weights:
            raise Unrecordable("it uses other weights for a batch of another size")
        self._weights = fewer.weights
        self._run = _function(_merged(fewer.steps, more.steps), len(fewer.weights), _merged(fewer.end, more.end))

    def of(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """Give what a network in eval mode computes for batches of any size, with the very tensors that it has now.

        Compare the result before it is used: what the two networks do in Python may differ, and its dice are thrown
        once. KeyError where the network lacks a tensor.
        """
        own = dict(_tensors(network))
        weights = [own[name] for name in self._weights]
        run = self._run
        return lambda batch: run(batch, *weights)


@dataclass(frozen=True)
class _Place:
    """A tensor of a pass: the first is its input; weights and results follow in the order in which they appear."""

    number: int


@dataclass(frozen=True)
class _PerInput:
    """A number that is so many times the batch's size."""

    times: int


@dataclass(frozen=True)
class _Step:
    """One operation. Its arguments are all there, tensors as their places; its results are as it gives them."""

    operation: Any
    arguments: list[Any]
    results: list[Any]
    weights: list[_Place]  # that it is the first to use


class _Reads(TorchFunctionMode):
    """Refuses what reads numbers unseen."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            raise Unrecordable(f"it reads its numbers by {func.__name__}")
        return func(*args, **(kwargs or {}))


class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no types
    """Runs a network once, and has its steps."""

    def __init__(self, network: nn.Module, inputs: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._own = {id(tensor): name for name, tensor in _tensors(network)}
        self._seen = [inputs]  # held, so that no other tensor gets the same id
        self._places = {id(inputs): _Place(0)}
        self._new: list[_Place] = []
        self.weights: list[str] = []
        self.steps: list[_Step] = []
        with _Reads(), self:
            features = network(inputs)
        if not isinstance(features, Tensor):
            raise Unrecordable("it gives more than a tensor")
        self.end = self._place(features)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(tag in func.tags for tag in _UNLIKE) and not _picks(func, args):
            raise Unrecordable(f"it goes by the numbers that it reads by {func}")
        given = [
            args[at] if at < len(args) else kwargs.get(argument.name, argument.default_value)
            for at, argument in enumerate(func._schema.arguments)  # noqa: SLF001  how torch's own tools ask
        ]
        self._new = []
        arguments = [self._placed(one) for one in given]
        made = func(*args, **kwargs)
        results = [self._result(one) for one in (made if isinstance(made, tuple) else (made,))]
        self.steps.append(_Step(func, arguments, results, self._new))
        return made

    def _placed(self, given: Any) -> Any:
        if isinstance(given, Tensor):
            return self._place(given)
        return [self._placed(one) for one in given] if isinstance(given, list | tuple) else given

    def _place(self, tensor: Tensor) -> _Place:
        found = self._places.get(id(tensor))
        if found is None:
            if id(tensor) not in self._own:
                raise Unrecordable("it uses a tensor that is not its own")
            self.weights.append(self._own[id(tensor)])
            found = self._next(tensor)
            self._new.append(found)
        return found

    def _result(self, made: Any) -> Any:
        if isinstance(made, list):
            return [self._result(one) for one in made]
        if not isinstance(made, Tensor):
            raise Unrecordable("an operation gives what is no tensor")
        return self._places.get(id(made)) or self._next(made)  # what changes a tensor gives the same one

    def _next(self, tensor: Tensor) -> _Place:
        place = self._places[id(tensor)] = _Place(len(self._seen))
        self._seen.append(tensor)
        return place


def _picks(func: Any, args: Sequence[Any]) -> bool:
    """Say whether this takes rows by their numbers: how many is no question, as it is where a mask says which."""
    masks = (torch.bool, torch.uint8)
    return func is torch.ops.aten.index.Tensor and all(one is None or one.dtype not in masks for one in args[1])


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Give all tensors that the network holds by name: parameters, buffers, and attributes that are neither."""
    yield from network.named_parameters(remove_duplicate=False)
    yield from network.named_buffers(remove_duplicate=False)
    for path, module in network.named_modules():
        yield from ((f"{path}.{name}", one) for name, one in vars(module).items() if isinstance(one, Tensor))


def _merged(fewer: Any, more: Any) -> Any:
    """Make one of two that were recorded at two sizes; numbers that are in proportion to those are found by that."""
    if isinstance(fewer, list) and isinstance(more, list) and len(fewer) == len(more):
        return [_merged(one, other) for one, other in zip(fewer, more, strict=True)]
    if isinstance(fewer, _Step) and isinstance(more, _Step) and fewer.operation is more.operation:
        arguments, results = _merged(fewer.arguments, more.arguments), _merged(fewer.results, more.results)
        return _Step(fewer.operation, arguments, results, _merged(fewer.weights, more.weights))
    if type(fewer) is type(more) and fewer == more:
        return fewer
    if type(fewer) is type(more) is int and fewer % SIZES[0] == 0 and more * SIZES[0] == fewer * SIZES[1]:
        return _PerInput(fewer // SIZES[0])
    raise Unrecordable(f"it does another thing for a batch of another size: {fewer}, {more}"[:200])


def _function(steps: Sequence[_Step], weights: int, end: _Place) -> Callable[..., Tensor]:
    """Make a function of a batch and the weights, in the order in which they appear."""
    graph: Any = torch._C.Graph()  # noqa: SLF001  what it can do is not all in torch's own types
    values = {0: graph.addInput()}
    inputs = [graph.addInput() for _ in range(weights)]
    free = iter(inputs)

    def added(kind: str, given: list[Any], results: int = 1) -> list[Any]:
        return list(graph.insertNode(graph.create(kind, given, results)).outputs())

    def value(given: Any, kind: Any) -> Any:
        kind = kind.getElementType() if isinstance(kind, torch.OptionalType) and given is not None else kind
        if isinstance(given, _Place):
            return values[given.number]
        if isinstance(given, _PerInput):
            return per_input(given.times)
        if isinstance(given, list) and (not given or any(isinstance(one, _Place | _PerInput) for one in given)):
            (made,) = added("prim::ListConstruct", [value(one, kind.getElementType()) for one in given])
            made.setType(kind)
            return made
        return graph.insertConstant(_LAYOUTS[given] if isinstance(given, torch.memory_format) else given)

    def per_input(times: int) -> Any:
        made = added("aten::size", [values[0], graph.insertConstant(0)])[0]
        made.setType(torch._C.IntType.get())  # noqa: SLF001
        if times != 1:
            made = added("aten::mul", [made, graph.insertConstant(times)])[0]
            made.setType(torch._C.IntType.get())  # noqa: SLF001
        return made

    for step in steps:
        schema = step.operation._schema  # noqa: SLF001
        values |= {place.number: next(free) for place in step.weights}
        kinds = [argument.type for argument in schema.arguments]
        given = [value(one, kind) for one, kind in zip(step.arguments, kinds, strict=True)]
        made = added(schema.name, given, len(schema.returns))
        for one, result in zip(made, step.results, strict=True):
            if isinstance(result, list):
                one.setType(torch.ListType(torch.TensorType.get()))
                unpacked = added("prim::ListUnpack", [one], len(result))
                values |= {place.number: part for place, part in zip(result, unpacked, strict=True)}
            else:
                values[result.number] = one
    graph.registerOutput(values[end.number])
    graph.lint()
    return torch._C._create_function_from_graph("recorded", graph)  # noqa: SLF001
