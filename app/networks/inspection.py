"""What `perennial check module:builder` finds about a user's own network before it is served.

Each finding is one property that serving and learning stand on. Plain torch; the command prints what comes back.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from app.errors import Corrupt, InvalidNetwork
from app.networks.backbone import FAILURES, cut, example
from app.networks.catalog import build
from app.networks.growth import grow
from app.networks.network import Network, batch_norms
from app.networks.serialization import load_weights, to_bytes
from app.networks.spec import NetworkSpec
from app.networks.user_network import built_by
from app.recipe import FeaturesInput, ImageInput

_LABELS = (7, 5, 9)
"""Ids in no order, so that a network that sorted them would be seen."""

_STEPS = 40
_RATES = (1e-2, 1e-3)


@dataclass(frozen=True)
class Finding:
    """One property: its name, whether it holds, and in words what was seen or what to do."""

    name: str
    ok: bool
    words: str


def inspect_builder(target: str, shape: ImageInput | FeaturesInput) -> list[Finding]:
    """Try the builder at "module:function" on the input it is to serve, and give all findings.

    Stops early where nothing more can be tried. Takes seconds for small networks; leaves torch's global random
    state as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return list(_findings(target, shape))


def _findings(target: str, shape: ImageInput | FeaturesInput) -> Iterator[Finding]:
    try:
        for classes in (3, 5):
            backbone = cut(built_by(target, classes), shape, classes)
        network = _built(NetworkSpec(target, shape, _LABELS))
    except InvalidNetwork as error:
        yield Finding("backbone and head", False, str(error))
        return
    parameters = sum(parameter.numel() for parameter in network.backbone.parameters())
    yield Finding(
        "backbone and head",
        True,
        f"The head is {backbone.head_name!r} and is replaced by one that grows; the rest is the backbone: "
        f"{parameters:,} parameters, features of width {network.width}.",
    )
    for look, name in _NAMES.items():
        try:
            yield look(network)
        except FAILURES as error:
            yield Finding(name, False, f"It failed: {error}. Make forward() run on any batch of this input.")


def _built(spec: NetworkSpec) -> Network:
    return build(spec, {spec.architecture: spec.architecture})


def _same_twice(network: Network) -> Finding:
    again = _built(network.spec)
    inputs = example(network.spec.input, 4)
    with torch.no_grad():
        same = torch.equal(network(inputs), again(inputs)) and torch.equal(network(inputs), network(inputs))
    return _finding(
        _same_twice,
        same,
        "Two builds from one seed give the same answers.",
        "Two builds from one seed, or two calls, give different answers. Draw all random weights through torch, and "
        "nothing random in eval mode.",
    )


def _batch_of_one(network: Network) -> Finding:
    inputs = example(network.spec.input, 4)
    with torch.no_grad():
        together = network(inputs)  # (4, labels)
        alone = torch.cat([network(item[None]) for item in inputs])  # (4, labels)
    return _finding(
        _batch_of_one,
        together.shape == alone.shape and torch.allclose(together, alone, rtol=1e-3, atol=1e-4),
        "An item gets the same answer alone as among others.",
        "In eval mode an item's answer depends on the others in its batch. Use no statistics of the batch in eval "
        "mode (BatchNorm with track_running_stats=True, or GroupNorm), and no squeeze() that drops a batch of one.",
    )


def _growth(network: Network) -> Finding:
    inputs = example(network.spec.input, 4)
    later = grow(grow(network, [8]), [1, 6])  # 1 sorts before all that were there
    with torch.no_grad():
        before, after = network(inputs), later(inputs)
    same = after.shape == (4, 6) and torch.equal(before, after[:, :3])
    return _finding(
        _growth,
        same and later.spec.labels == (*_LABELS, 8, 1, 6),
        "New labels leave the old logits bit-equal, also one that sorts first.",
        "A copy of the network with more labels answers differently for the old ones. Keep all state in parameters "
        "and buffers, so that copy.deepcopy copies it, and nothing random in eval mode.",
    )


def _save_and_load(network: Network) -> Finding:
    moved = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    again = _built(network.spec)
    failure = (
        "The network does not come back as it was saved{}. Keep all state that matters in parameters and persistent "
        "buffers, and let no two parameters share memory."
    )
    try:
        load_weights(again, to_bytes(moved.state_dict()))
    except Corrupt as error:
        return _finding(_save_and_load, False, "", failure.format(f" ({error.why})"))
    inputs = example(network.spec.input, 4)
    with torch.no_grad():
        same = torch.equal(moved(inputs), again(inputs))
    return _finding(_save_and_load, same, "Saved and loaded, it gives bit-equal answers.", failure.format(""))


def _gradients(network: Network) -> Finding:
    learner = _learner(network)
    _loss(learner, *_lesson(network)).backward()  # type: ignore[no-untyped-call]
    without = [
        name
        for name, parameter in learner.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not torch.isfinite(parameter.grad).all())
    ]
    return _finding(
        _gradients,
        not without,
        "All trainable parameters get gradients.",
        f"No finite gradient reaches {', '.join(without[:8])}. Use these in forward(), without detach() or "
        "no_grad(), or set requires_grad=False on them.",
    )


def _learns(network: Network) -> Finding:
    inputs, rows = _lesson(network)
    runs = [_losses(_learner(network), inputs, rows, lr) for lr in _RATES]
    best = min(runs, key=min)
    standing = " BatchNorm stands still while learning from few samples; use GroupNorm." if batch_norms(network) else ""
    return _finding(
        _learns,
        min(best) < 0.8 * best[0],
        f"The loss on one small batch fell from {best[0]:.3f} to {min(best):.3f} in {_STEPS} steps.",
        f"The loss on one small batch went from {best[0]:.3f} to {min(best):.3f} at best in {_STEPS} steps of Adam; "
        "it should fall. Look for a missing normalisation, dead activations or weights that start too large."
        + standing,
    )


def _losses(learner: Network, inputs: Tensor, rows: Tensor, lr: float) -> list[float]:
    optimizer = torch.optim.Adam([parameter for parameter in learner.parameters() if parameter.requires_grad], lr=lr)
    losses: list[float] = []
    for _ in range(_STEPS):
        optimizer.zero_grad()
        loss = _loss(learner, inputs, rows)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _learner(network: Network) -> Network:
    """A copy in the mode in which the worker trains: learning, but with BatchNorm standing still."""
    learner = copy.deepcopy(network).train()
    for module in batch_norms(learner):
        module.eval()
    return learner


def _lesson(network: Network) -> tuple[Tensor, Tensor]:
    inputs = example(network.spec.input, 8)
    return inputs, torch.arange(8) % len(_LABELS)


def _loss(network: nn.Module, inputs: Tensor, rows: Tensor) -> Tensor:
    return functional.cross_entropy(network(inputs), rows)


Look = Callable[[Network], Finding]

_NAMES: dict[Look, str] = {
    _same_twice: "same answers twice",
    _batch_of_one: "batch of one",
    _growth: "growth",
    _save_and_load: "save and load",
    _gradients: "gradients",
    _learns: "learning",
}


def _finding(look: Look, ok: bool, seen: str, advice: str) -> Finding:
    return Finding(_NAMES[look], ok, seen if ok else advice)
