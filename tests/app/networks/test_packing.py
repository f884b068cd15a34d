"""Rewritten networks compute what the network computes, and leave it as it was."""

import copy

import pytest
import torch
from torch import Tensor, nn

from app.networks.backbone import example
from app.networks.catalog import build
from app.networks.packing import blocked, folded, packed
from app.networks.spec import NetworkSpec
from app.recipe import ImageInput

SHAPE = ImageInput(size=32, channels=3)

in_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16"
)


class TwiceUsed(nn.Module):
    """One convolution under two norms, a ReLU whose input is asked for again, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.again = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.first, self.second = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, inputs: Tensor) -> Tensor:
        bare = self.norm(self.stem(inputs))
        inner = self.second(self.again(self.first(self.again(torch.relu(bare)))))
        return torch.flatten(self.pool((inner + bare).relu()), 1)


def learned(network: nn.Module) -> nn.Module:
    """Give every norm statistics that are not those of the start."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
    return network.eval()


def with_batch_norms() -> nn.Module:
    import torchvision  # noqa: PLC0415  it takes seconds

    network = torchvision.models.resnet18(weights=None)
    network.fc = nn.Identity()
    return learned(network)


def unchanged(network: nn.Module, before: dict[str, Tensor]) -> bool:
    state = network.state_dict()
    return list(state) == list(before) and all(
        torch.equal(tensor, before[name]) and tensor.dtype == before[name].dtype for name, tensor in state.items()
    )


@pytest.mark.parametrize("make", [with_batch_norms, lambda: learned(TwiceUsed())])
@pytest.mark.parametrize("rewrite", [packed, blocked, folded])
@pytest.mark.parametrize("count", [1, 5])
def test_a_rewritten_network_gives_the_same_features(make, rewrite, count) -> None:  # type: ignore[no-untyped-def]
    network = make()
    before = copy.deepcopy(network.state_dict())
    inputs = example(SHAPE, 5)[:count]
    with torch.inference_mode():
        plain = network(inputs)

        own = rewrite(network, inputs)(inputs)

    torch.testing.assert_close(own, plain, atol=1e-4 * float(plain.abs().max()), rtol=0)
    assert unchanged(network, before)
    assert torch.equal(network(inputs), plain)


@in_bfloat16
@pytest.mark.parametrize("rewrite", [packed, folded])
def test_in_bfloat16_the_features_are_near_and_float32_and_the_network_stays_as_it_was(rewrite) -> None:  # type: ignore[no-untyped-def]
    network = with_batch_norms()
    before = copy.deepcopy(network.state_dict())
    inputs = example(SHAPE, 4)
    with torch.inference_mode():
        plain = network(inputs)

        own = rewrite(network, inputs, torch.bfloat16)(inputs)

    assert own.dtype == torch.float32
    torch.testing.assert_close(own, plain, atol=5e-2 * float(plain.abs().max()), rtol=0)
    assert unchanged(network, before)


@in_bfloat16
def test_layers_that_are_not_rewritten_stay_the_network_s_own_in_float32() -> None:
    network = build(NetworkSpec("small_cnn", SHAPE, labels=(1, 2)), {}).backbone
    before = copy.deepcopy(network.state_dict())
    inputs = example(SHAPE, 4)
    with torch.inference_mode():
        plain = network(inputs)

        torch.testing.assert_close(packed(network, inputs)(inputs), plain, atol=1e-4, rtol=0)
        packed(network, inputs, torch.bfloat16)

    assert unchanged(network, before)


def test_a_convolution_that_pads_with_something_else_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")).eval()
    with pytest.raises(ValueError, match="pads"):
        packed(network, example(SHAPE, 1))
