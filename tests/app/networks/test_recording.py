"""A recorded pass gives the network's very numbers for batches of any size, or there is none."""

import gc
import random
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from app.networks.catalog import build
from app.networks.packing import blocked, cast, packed
from app.networks.recording import Recording, Unrecordable
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput, ImageInput

PICTURES = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
ROWS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def recorded(network: nn.Module, inputs: Tensor) -> Callable[[Tensor], Tensor]:
    return Recording(network, inputs).of(network)


class Body(nn.Module):
    """A network of rows with any body."""

    def __init__(self, body: Callable[["Body", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.linear = nn.Linear(6, 6)
        self.register_buffer("order", torch.tensor([3, 1, 0]))
        self.register_buffer("mask", torch.tensor([True, False, True, True, False, True]))
        self.own = torch.arange(6.0)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(self, inputs)


def attention(network: Body, rows: Tensor) -> Tensor:
    """Heads are folded into the batch, so that sizes are multiples of its own."""
    queries = network.linear(rows).view(len(rows), 2, 3).transpose(0, 1).reshape(2 * len(rows), 1, 3)
    weights = torch.bmm(queries, queries.transpose(1, 2)).softmax(-1)
    return torch.bmm(weights, queries).view(2, rows.size(0), 3).permute(1, 0, 2).reshape(rows.size(0), -1)


BODIES: dict[str, Callable[[Body, Tensor], Tensor]] = {
    "flattened by its size": lambda net, x: net.linear(x.view(x.size(0), -1)),
    "attention": attention,
    "numbers": lambda net, x: (net.linear(x) * 2 + 1.5) / 3 - x**2,
    "in place": lambda net, x: net.linear(x).relu_().add_(x).mul_(0.5),
    "in parts": lambda net, x: torch.cat([part.tanh() for part in net.linear(x).chunk(3, dim=1)], 1),
    "in two": lambda net, x: torch.stack(net.linear(x).split([2, 4], 1)[1].max(1), 1)[:, :1].float() + x,
    "rows by number": lambda net, x: net.linear(x)[:, net.order],
    "made within": lambda net, x: torch.zeros(len(x), 6) + torch.ones_like(x) * net.linear(x),
    "own tensor": lambda net, x: net.linear(x) + net.own,
    "dropout": lambda net, x: functional.dropout(net.linear(x), 0.5, training=net.training),
    "embedding of what is counted": lambda net, x: functional.embedding((x > 0).sum(1), net.linear.weight.repeat(2, 1)),
    "nothing": lambda net, x: x,
    "weight alone": lambda net, x: net.linear.weight.t().matmul(x.t()).t(),
    "where": lambda net, x: torch.where(x > 0, net.linear(x), x.clamp(min=-0.5)),
}


@pytest.mark.parametrize("name", BODIES)
@torch.inference_mode()
def test_a_network_of_any_form_gives_the_same_bits(name: str) -> None:
    network = Body(BODIES[name]).eval()
    run = recorded(network, ROWS)
    for _ in range(3):  # torch's interpreter rewrites what it runs after the first time
        for size in (1, 2, 5):
            assert torch.equal(run(ROWS[:size] * size), network(ROWS[:size] * size))


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda network: network,
    "packed": lambda network: packed(network, PICTURES[:1]),
    "blocked": lambda network: blocked(network, PICTURES, batch=5),
    "bfloat16": lambda network: cast(network, torch.bfloat16),
}


SERVED = [
    *[
        (architecture, way)
        for architecture in ("mobilenet_v3_small", "shufflenet_v2_x0_5")
        for way in ("plain", "packed")
    ],
    *[("resnet18", way) for way in WAYS],
    ("vgg11", "bfloat16"),
]


@pytest.mark.parametrize(("architecture", "way"), SERVED)
@torch.inference_mode()
def test_an_architecture_as_it_is_served_gives_the_same_bits(architecture: str, way: str) -> None:
    torch.manual_seed(0)
    network = WAYS[way](models.get_model(architecture, num_classes=4).eval())
    run = recorded(network, PICTURES)
    for size in (1, 5, 1):
        assert torch.equal(run(PICTURES[:size]), network(PICTURES[:size]))


@pytest.mark.parametrize("architecture", ["mlp", "linear", "small_cnn"])
@torch.inference_mode()
def test_the_product_s_own_networks_can_be_recorded(architecture: str) -> None:
    shape = ImageInput(size=64, channels=3) if architecture == "small_cnn" else FeaturesInput(size=6)
    backbone = build(NetworkSpec(architecture, shape, labels=(1, 2)), {}).backbone
    inputs = PICTURES if architecture == "small_cnn" else ROWS
    assert torch.equal(recorded(backbone, inputs)(inputs), backbone(inputs))


def test_it_reads_the_network_s_own_numbers() -> None:
    network = Body(BODIES["in place"]).eval()
    run = recorded(network, ROWS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)
        assert torch.equal(run(ROWS), network(ROWS))


@torch.inference_mode()
def test_what_was_recorded_of_one_runs_another_of_its_form() -> None:
    torch.manual_seed(0)
    one, other = (packed(models.resnet18(num_classes=4).eval(), PICTURES[:1]) for _ in range(2))
    recording = Recording(one, PICTURES)
    runs = recording.of(one), recording.of(other)
    for size in (1, 5):
        for run, network in zip(runs, (one, other), strict=True):
            assert torch.equal(run(PICTURES[:size]), network(PICTURES[:size]))


def test_a_network_of_another_form_lacks_tensors() -> None:
    recording = Recording(Body(BODIES["attention"]).eval(), ROWS)
    with pytest.raises(KeyError):
        recording.of(nn.Linear(6, 6))


REFUSED: dict[str, Callable[[Body, Tensor], Tensor]] = {
    "a number decides": lambda net, x: net.linear(x) if x.sum() > 0 else x,
    "a number is read": lambda net, x: x * float(x.max()),
    "read as an array": lambda net, x: x * float(x.numpy().max()),
    "read as a list": lambda net, x: x * x.tolist()[0][0],
    "as many as a mask says": lambda net, x: x[:, net.mask],
    "as many as are not zero": lambda net, x: x[x.sum(1).nonzero()[:, 0]],
    "a tensor from elsewhere": lambda net, x: x + torch.tensor([1.0]),
    "by the batch's size": lambda net, x: x + len(x) ** 2,
    "another path for many": lambda net, x: net.linear(x) if len(x) > 2 else x.relu(),
    "more steps for many": lambda net, x: torch.stack([row.relu() for row in x]),
    "another weight for many": lambda net, x: x + (net.linear.weight[0] if len(x) > 2 else net.own),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_goes_by_more_than_its_input_s_form_is_refused(name: str) -> None:
    with pytest.raises(Unrecordable):
        recorded(Body(REFUSED[name]).eval(), ROWS)


def test_a_network_that_gives_more_than_a_tensor_is_refused() -> None:
    with pytest.raises(Unrecordable, match="more than a tensor"):
        recorded(Body(lambda net, x: (x, x)).eval(), ROWS)  # type: ignore[arg-type,return-value]


def test_threads_run_it_side_by_side() -> None:
    network = models.resnet18(num_classes=4).eval()
    run = recorded(network, PICTURES)
    with torch.inference_mode():
        expected = [network(PICTURES[:size]) for size in range(1, 6)]

    def asked(_: int) -> bool:
        with torch.inference_mode():
            size = random.randint(1, 5)
            return torch.equal(run(PICTURES[:size]), expected[size - 1])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(asked, range(40)))


def test_recording_leaves_the_network_as_it_was_and_lets_it_go() -> None:
    network = Body(BODIES["numbers"]).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    run = recorded(network, ROWS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    weight = weakref.ref(network.linear.weight)
    gc.disable()
    try:
        del network, run
        assert weight() is None  # at once: nothing waits for the collector
    finally:
        gc.enable()
