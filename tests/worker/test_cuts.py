"""Long operations in parts: the same numbers, and a stop between the parts."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.courtesy import _Between
from worker.cuts import NUMBERS, in_parts
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


LONG = 3_000_000


def vectors(count: int, shape: tuple[int, ...] = (LONG,)) -> list[Tensor]:
    made = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=made) for _ in range(count)]


def of_lists(function: Callable[..., None], *more: object, **how: object) -> Callable[..., list[Tensor]]:
    def call(*given: Tensor) -> list[Tensor]:
        lists = [[one, one[: LONG // 2] * 2, one[:5].clone()] for one in given]
        function(*lists, *more, **how)
        return lists[0]

    return call


def fused(function: Callable[..., None], moments: int, **how: object) -> Callable[..., list[Tensor]]:
    def call(*given: Tensor) -> list[Tensor]:
        lists = [[one.abs(), one[:5].abs()] for one in given[: 2 + moments]]
        steps = [[], [torch.tensor(3.0), torch.tensor(3.0)]] if moments > 1 else []
        function(*lists, *steps, weight_decay=0.01, lr=0.1, maximize=False, **how)
        return [one for each in lists for one in each]

    return call


SGD = {"momentum": 0.9, "dampening": 0.0, "nesterov": False, "is_first_step": False}
ADAM = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "amsgrad": False}
PICTURES = (16, 64, 64, 64)
EACH_NUMBER: dict[str, tuple[Callable[..., object], int, tuple[int, ...]]] = {
    "difference": (lambda x, y: x - y, 2, (LONG,)),
    "difference of a share": (lambda x, y: torch.sub(x, y, alpha=0.3), 2, PICTURES),
    "product": (lambda x, y: x * y, 2, (LONG,)),
    "share": (lambda x: x * 0.3, 1, (LONG,)),
    "copy": (lambda x: x.clone(), 1, (LONG,)),
    "copy laid out otherwise": (lambda x: x.clone(memory_format=torch.channels_last), 1, PICTURES),
    "zeros": (torch.zeros_like, 1, PICTURES),
    "zeros of another kind": (lambda x: torch.zeros_like(x, dtype=torch.int64), 1, (LONG,)),
    "whole numbers": (lambda x: x.long() * 0.5, 1, (LONG,)),
    "relu": (torch.relu, 1, PICTURES),
    "relu in place": (lambda x: x.relu_(), 1, PICTURES),
    "sum in place": (lambda x, y: x.add_(y, alpha=0.3), 2, (LONG,)),
    "sum in place with a row": (lambda x, y: x.add_(y[:1]), 2, PICTURES),
    "share in place": (lambda x: x.mul_(0.3), 1, (LONG,)),
    "zeros in place": (lambda x: x.zero_(), 1, (LONG,)),
    "copy in place": (lambda x, y: x.copy_(y), 2, (LONG,)),
    "copies": (of_lists(torch._foreach_copy_), 2, (LONG,)),
    "averages": (of_lists(torch._foreach_lerp_, 0.3), 2, (LONG,)),
    "sgd": (fused(torch._fused_sgd_, 1, **SGD), 3, (LONG,)),
    "adam": (fused(torch._fused_adam_, 2, **ADAM), 4, (LONG,)),
    "adamw": (fused(torch._fused_adamw_, 2, **ADAM), 4, (LONG,)),
}
AS_THEY_ARE = {"copy laid out otherwise", "zeros of another kind", "whole numbers", "sum in place with a row"}


@pytest.mark.parametrize("what", EACH_NUMBER)
def test_what_is_done_to_each_number_by_itself_has_the_same_bits(what: str) -> None:
    do, count, shape = EACH_NUMBER[what]
    whole = do(*vectors(count, shape))
    stops: dict[object, int] = {}
    at: object = None

    class Counting(_Between):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal at
            at = func
            return super().__torch_dispatch__(func, types, args, kwargs)

    def stop() -> None:
        stops[at] = stops.get(at, 0) + 1

    given = vectors(count, shape)
    with Counting(stop):
        parts = do(*given)

    for one, other in zip(*(each if isinstance(each, list) else [each] for each in (whole, parts)), strict=True):
        assert torch.equal(one, other)
        assert (one.dtype, one.stride()) == (other.dtype, other.stride())
    assert (max(stops.values()) >= LONG // NUMBERS) == (what not in AS_THEY_ARE)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_network_that_is_only_asked_is_cut_too(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(64, 64, 3, padding=1, groups=64),
        nn.Conv2d(64, 100, 3, padding="same"),
    ).eval()
    x = torch.randn(128, 3, 64, 64).to(memory_format=layout)
    count = 0

    def stop() -> None:
        nonlocal count
        count += 1

    with torch.inference_mode():
        whole = network(x)
        with _Between(stop):
            parts = network(x)

    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    assert count > 20


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
    """How often a step stops: before each operation, and between parts of those that a network is made of."""
    count = 0
    each_number = False

    def stop() -> None:
        nonlocal count
        count += not each_number

    class Counting(_Between):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal each_number
            each_number = func.overloadpacket in (torch.ops.aten.clone, torch.ops.aten.copy_)
            if cut:
                return super().__torch_dispatch__(func, types, args, kwargs)
            stop()
            return func(*args, **(kwargs or {}))

    with Counting(stop):
        learned(network, x)
    return count
