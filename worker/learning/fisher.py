"""How much a network's answers depend on each weight: the diagonal of the empirical Fisher information.

Called by EWC. Gradients are squared sample by sample, never as a batch's mean: the square of a mean is another number,
smaller by about the size of the batch.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

_NUMBERS = 50_000_000  # of per-sample gradients held at a time
_CHUNK = 64

Parameters = Mapping[str, nn.Parameter]
Squares = Callable[[Tensor, Tensor], dict[str, Tensor]]


def fisher(
    network: nn.Module, named: Parameters, batches: Iterable[tuple[Tensor, Tensor]], *, closed_form: bool = True
) -> dict[str, Tensor]:
    """F = 1/n Σₛ (∂ −log p(yₛ|xₛ)/∂θ)² for each of the `named` parameters, with the labels yₛ as given.

    The network is put into eval mode and is otherwise left as it is. Batches are (inputs, rows of the head). Where
    all weights are those of layers that compute x·Wᵀ + b once, it is one product for each: F_W = (δ²)ᵀ(a²)/n, a a
    layer's inputs and δ the gradient of its outputs; else per-sample gradients by `vmap`. Without samples, zeros.
    """
    network.eval()
    sums = {name: torch.zeros_like(parameter, requires_grad=False) for name, parameter in named.items()}
    leaves = _linear_leaves(network, named) if closed_form else None
    count = 0
    for inputs, targets in batches:
        squares = _by_product(network, leaves, inputs, targets) if leaves else None
        if squares is None:
            leaves = None
            squares = _by_sample(network, named, inputs, targets)
        for name, total in sums.items():
            total.add_(squares[name])
        count += len(targets)
    return {name: total / max(count, 1) for name, total in sums.items()}


def _linear_leaves(network: nn.Module, named: Parameters) -> dict[str, nn.Module] | None:
    """Modules with a matrix and perhaps a bias that hold all `named` parameters; None where others hold some."""
    found: dict[str, nn.Module] = {}
    places = [parameter for _, parameter in network.named_parameters(remove_duplicate=False)]
    if len(places) > len(set(places)):  # two layers share a matrix: its gradient is a sum
        return None
    for name in named:
        owner = network.get_submodule(name.rpartition(".")[0])
        own = dict(owner.named_parameters())
        if not set(own) <= {"weight", "bias"} or own.get("weight", torch.empty(0)).dim() != 2:
            return None
        found[name.rpartition(".")[0]] = owner
    return found


def _by_product(
    network: nn.Module, leaves: Mapping[str, nn.Module], inputs: Tensor, targets: Tensor
) -> dict[str, Tensor] | None:
    """Sum of squares over the samples, or None if some layer does not compute x·Wᵀ + b exactly once."""
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in leaves}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _module, given, output: calls[name].append((given[0], output))

    hooks = [module.register_forward_hook(note(name)) for name, module in leaves.items()]
    try:
        logits = network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    for name, made in calls.items():
        if len(made) != 1 or made[0][0].dim() != 2 or not _is_linear(leaves[name], *made[0]):
            return None
    loss = functional.cross_entropy(logits, targets, reduction="sum")
    gradients = torch.autograd.grad(loss, [made[0][1] for made in calls.values()])
    squares: dict[str, Tensor] = {}
    for (name, made), gradient in zip(calls.items(), gradients, strict=True):
        delta = gradient.square()
        prefix = f"{name}." if name else ""
        squares[f"{prefix}weight"] = delta.T @ made[0][0].detach().square()
        squares[f"{prefix}bias"] = delta.sum(0)
    return squares


def _is_linear(module: nn.Module, given: Tensor, output: Tensor) -> bool:
    if isinstance(module, nn.Linear):
        return True
    with torch.no_grad():
        weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
        if given.dtype != weight.dtype or given.shape[1:] != weight.shape[1:]:
            return False
        expected = functional.linear(given, weight, bias)
        return expected.shape == output.shape and torch.allclose(expected, output, atol=1e-4)


def _by_sample(network: nn.Module, named: Parameters, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    weights = {name: parameter.detach() for name, parameter in named.items()}

    def loss(weights: dict[str, Tensor], one: Tensor, target: Tensor) -> Tensor:
        logits = torch.func.functional_call(network, weights, (one.unsqueeze(0),))
        return functional.cross_entropy(logits, target.unsqueeze(0))

    gradient = torch.func.grad(loss)
    size = max(1, min(_CHUNK, _NUMBERS // max(1, sum(weight.numel() for weight in weights.values()))))
    every = torch.func.vmap(gradient, in_dims=(None, 0, 0), randomness="different")
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for start in range(0, len(targets), size):
        some, rows = inputs[start : start + size], targets[start : start + size]
        try:
            squares = {name: g.square().sum(0) for name, g in every(weights, some, rows).items()}
        except RuntimeError:  # some networks ask their inputs questions that vmap has no answer to
            squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
            for one, row in zip(some, rows, strict=True):
                for name, g in gradient(weights, one, row).items():
                    squares[name] += g.square()
        for name, total in sums.items():
            total.add_(squares[name])
    return sums
