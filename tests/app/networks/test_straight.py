"""A chain of layers without its modules gives the same bits, and what is no chain is left as it is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from app.networks.catalog import build
from app.networks.spec import NetworkSpec
from app.networks.standardize import standardize
from app.networks.straight import straight
from app.recipe import FeaturesInput

ROWS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def taught(architecture: str) -> nn.Module:
    network = build(NetworkSpec(architecture, FeaturesInput(size=6), labels=(1, 2)), {})
    standardize(network, ROWS * 3 + 1)
    return network.backbone


def chain() -> nn.Module:
    inner = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Dropout(0.5), nn.Identity())
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.LayerNorm(8), nn.Sigmoid(), inner, nn.ReLU())


def twice() -> nn.Module:
    act = nn.ReLU()
    return nn.Sequential(nn.Linear(6, 8), act, nn.Linear(8, 4), act)


@pytest.mark.parametrize("make", [chain, twice, lambda: taught("mlp"), lambda: taught("linear")])
@pytest.mark.parametrize("scale", [1.0, 100.0])  # the second is far outside what was seen
@torch.inference_mode()
def test_a_chain_gives_the_same_bits(make: Callable[[], nn.Module], scale: float) -> None:
    network = make().eval()
    run = straight(network)
    assert run is not None
    for rows in (ROWS * scale, ROWS[:1] * scale, ROWS[:0]):
        assert torch.equal(run(rows), network(rows))


def test_it_reads_the_network_s_own_numbers() -> None:
    network = chain().eval()
    run = straight(network)
    assert run is not None
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
        assert torch.equal(run(ROWS), network(ROWS))


class Odd(nn.Linear):
    """It could do anything in its forward."""


def hooked() -> nn.Module:
    network = chain()
    network[0].register_forward_hook(lambda module, given, made: made + 1)
    return network


def test_what_is_not_known_is_no_chain() -> None:
    def looked(module: nn.Module, given: tuple[Tensor, ...]) -> None: ...

    before = chain()
    before.register_forward_pre_hook(looked)
    own = chain()
    own[0].forward = lambda inputs: inputs  # type: ignore[method-assign]
    for network in (own, Odd(6, 2), nn.Sequential(nn.Linear(6, 2), nn.Softmax(1)), hooked(), before):
        assert straight(network) is None
