"""How a spec becomes a network: the same always, and nothing else moved."""

import threading

import pytest
import torch
from torch import nn

from app.errors import InvalidNetwork
from app.networks.backbone import example
from app.networks.catalog import CATALOG, build, default_architecture, skeleton
from app.networks.network import batch_norms
from app.networks.serialization import to_bytes
from app.networks.spec import NetworkSpec
from app.networks.standardize import standardize
from app.recipe import FeaturesInput, ImageInput

SMALL = ImageInput(size=28, channels=1)


def state(spec: NetworkSpec) -> bytes:
    return to_bytes(build(spec, {}).state_dict())


def test_a_seed_decides_every_weight_and_the_global_generator_is_left_alone() -> None:
    spec = NetworkSpec("small_cnn", SMALL, (1, 2), seed=5)
    first = state(spec)
    torch.rand(3)
    before = torch.random.get_rng_state()

    assert state(spec) == first
    assert torch.equal(torch.random.get_rng_state(), before)
    assert state(NetworkSpec("small_cnn", SMALL, (1, 2), seed=6)) != first


def test_networks_built_by_several_threads_at_once_are_the_same() -> None:
    spec = NetworkSpec("small_cnn", SMALL, (1,), seed=5)
    expected = state(spec)
    built: list[bytes] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait(timeout=10)
        built.extend(state(spec) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert built == [expected] * 20


def test_the_number_of_labels_moves_no_weight_of_the_backbone_or_of_another_label() -> None:
    one = build(NetworkSpec("mlp", FeaturesInput(size=3), (7,)), {}).state_dict()
    two = build(NetworkSpec("mlp", FeaturesInput(size=3), (2, 7)), {}).state_dict()
    assert torch.equal(one["head.weight"][0], two["head.weight"][1])
    assert all(torch.equal(one[name], two[name]) for name in one if name.startswith("backbone."))


def test_networks_come_in_eval_mode() -> None:
    assert not build(NetworkSpec("mlp", FeaturesInput(size=3)), {}).training


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        (FeaturesInput(size=9), "mlp"),
        (ImageInput(size=28, channels=1), "small_cnn"),
        (ImageInput(size=64, channels=3), "small_cnn"),
        (ImageInput(size=65, channels=3), "mobilenet_v3_small"),
    ],
)
def test_the_default_fits_the_input(shape: ImageInput | FeaturesInput, name: str) -> None:
    assert default_architecture(shape) == name
    assert name in CATALOG


def test_an_unknown_architecture_lists_those_that_exist() -> None:
    with pytest.raises(InvalidNetwork, match=r"mine, mlp, linear, small_cnn"):
        build(NetworkSpec("nope", SMALL), {"mine": "a:b"})


@pytest.mark.parametrize(("name", "shape"), [("mlp", SMALL), ("small_cnn", FeaturesInput(size=4))])
def test_an_architecture_of_the_other_kind_of_input_is_refused(name: str, shape: ImageInput | FeaturesInput) -> None:
    with pytest.raises(InvalidNetwork, match="takes"):
        build(NetworkSpec(name, shape), {})


def test_pictures_too_small_or_of_a_wrong_size_are_refused_in_words() -> None:
    with pytest.raises(InvalidNetwork, match=r"does not take a batch \(2, 3, 8, 8\)"):
        build(NetworkSpec("vgg11", ImageInput(size=8)), {})
    with pytest.raises(InvalidNetwork, match="multiple of 16"):
        build(NetworkSpec("vit_b_16", ImageInput(size=28)), {})


def test_random_weights_get_a_fitted_stem_and_no_running_statistics() -> None:
    small = build(NetworkSpec("resnet18", ImageInput(size=32)), {})
    stem = small.backbone.get_submodule("conv1")
    assert isinstance(stem, nn.Conv2d)
    assert (stem.kernel_size, stem.stride) == ((3, 3), (1, 1))
    assert batch_norms(small) == []

    large = build(NetworkSpec("resnet18", ImageInput(size=96)), {})
    assert large.backbone.get_submodule("conv1").stride == (2, 2)


def test_base_weights_keep_stem_and_statistics() -> None:
    network = skeleton(NetworkSpec("resnet18", ImageInput(size=32), weights="sha256:" + "0" * 64), {})
    stem = network.module.get_submodule("conv1")
    assert isinstance(stem, nn.Conv2d)
    assert stem.kernel_size == (7, 7)
    assert len(batch_norms(network.module)) == 20


def test_the_mlp_learns_from_raw_scales_and_a_constant_column() -> None:
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(150) % 3
    plain = torch.randn(150, 4, generator=generator) + 3 * torch.eye(4)[targets]
    inputs = plain * torch.tensor([1e6, 1e-5, 1.0, 0.0]) + torch.tensor([1e7, 0.0, -50.0, 1e9])
    network = build(NetworkSpec("mlp", FeaturesInput(size=4), (0, 1, 2)), {})
    standardize(network, inputs[:100])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)

    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(inputs[:100]), targets[:100])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    assert (network(inputs[100:]).argmax(1) == targets[100:]).float().mean() > 0.85


def test_linear_gives_the_numbers_themselves_standardised() -> None:
    inputs = torch.tensor([[100.0, 0.001], [300.0, 0.003]])
    network = build(NetworkSpec("linear", FeaturesInput(size=2), (4, 7)), {})
    standardize(network, inputs)

    torch.testing.assert_close(network.features(inputs), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    assert [name for name, _ in network.named_parameters()] == ["head.weight", "head.bias"]
    assert network.width == network.head_width == 2
    with pytest.raises(InvalidNetwork, match="features, not images"):
        build(NetworkSpec("linear", SMALL), {})


def test_linear_may_have_a_projection_before_the_head() -> None:
    network = build(NetworkSpec("linear", FeaturesInput(size=2), (4, 7), projection=50), {})
    assert network.features(torch.ones(3, 2)).shape == (3, 50)
    assert network.head.weight.shape == (2, 50)


def test_examples_are_the_same_always() -> None:
    assert torch.equal(example(SMALL, 3), example(SMALL, 3))
    assert example(FeaturesInput(size=5)).shape == (2, 5)
