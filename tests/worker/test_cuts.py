"""Long operations in parts: the same numbers, and a stop between the parts."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.courtesy import _Between
from worker.cuts import in_parts
from worker.learning.fisher import fisher

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "3 x 3": lambda: nn.Conv2d(64, 64, 3, padding=1, bias=False),
    "with a bias": lambda: nn.Conv2d(64, 96, 3, padding=1),
    "apart and spread": lambda: nn.Conv2d(64, 128, 3, stride=2, padding=2, dilation=2, bias=False),
    "few channels in": lambda: nn.Sequential(nn.Conv2d(3, 64, 7, padding=3, bias=False)),
    "odd channels": lambda: nn.Conv2d(70, 130, 3, padding=1, bias=False),
    "groups": lambda: nn.Conv2d(64, 64, 3, padding=1, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(64, 32, 3, padding=1),
    "normalized": lambda: nn.Sequential(nn.Conv2d(64, 64, 1), nn.BatchNorm2d(64), nn.ReLU()),
    "pooled": lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)),
}
CHANNELS = {"few channels in": 3, "odd channels": 70}
WHOLE = {"groups", "transposed", "odd channels"}  # left as they are


@pytest.fixture
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield None
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_parts_give_the_same_numbers(kind: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    network = NETWORKS[kind]()
    x = (
        torch.randn(32, CHANNELS.get(kind, 64), 40, 40)
        .to(memory_format=layout)
        .requires_grad_(kind != "few channels in")
    )
    whole, alone = learned(network, x), calls_of(network, x, cut=False)
    with _Between(lambda: None):
        parts = learned(network, x)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(one.abs().max()))
    assert (calls_of(network, x, cut=True) > alone) == (kind not in WHOLE)


def test_a_short_operation_is_left_whole() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
    x = torch.randn(4, 3, 16, 16)
    assert calls_of(network, x, cut=True) == calls_of(network, x, cut=False)


@pytest.mark.usefixtures("one_thread")
def test_gradients_sample_by_sample_are_the_same_too() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    batches = [(torch.randn(16, 64, 32, 32), torch.arange(16))]
    whole = fisher(network, dict(network.named_parameters()), batches)
    with _Between(lambda: None):
        parts = fisher(network, dict(network.named_parameters()), batches)
    for name, squares in whole.items():
        torch.testing.assert_close(parts[name], squares, rtol=1e-4, atol=0.0)


def test_what_is_raised_between_two_parts_is_heard() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    x = torch.randn(64, 64, 32, 32)
    with pytest.raises(KeyboardInterrupt):
        in_parts(interrupt, torch.ops.aten.max_pool2d_with_indices.default, (x, [2, 2]), {})


def learned(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, gradient of the input and gradients of the weights."""
    network.zero_grad(set_to_none=True)
    x.grad = None
    state = {name: value.clone() for name, value in network.state_dict().items()}
    out = network(x)
    functional.mse_loss(out, torch.ones_like(out)).backward()  # type: ignore[no-untyped-call]
    network.load_state_dict(state)
    gradients = [one.grad.clone() for one in (x, *network.parameters()) if one.grad is not None]
    return [out.detach(), *gradients]


def calls_of(network: nn.Module, x: Tensor, *, cut: bool) -> int:
    """How often a step stops: before each operation, and between parts."""
    count = 0

    def stop() -> None:
        nonlocal count
        count += 1

    class Before(_Between):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            stop()
            return func(*args, **(kwargs or {}))

    with _Between(stop) if cut else Before(stop):
        learned(network, x)
    return count
