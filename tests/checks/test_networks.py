"""What every architecture of the catalog must satisfy; a new one is tested by adding its row.

The large torchvision names share one adapter with those run here and are left out for their time alone.
"""

from pathlib import Path

import pytest
import torch

from app.networks.backbone import example
from app.networks.catalog import CATALOG, build, skeleton
from app.networks.growth import grow
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.networks.serialization import backbone_digest, go_on, load_weights, mapped, tensors_digest, to_bytes
from app.networks.spec import NetworkSpec
from app.networks.torchvision_classifier import NAMES
from app.recipe import FeaturesInput, ImageInput

COLOUR = ImageInput(size=32, channels=3)
GREY = ImageInput(size=28, channels=1)
LARGE = ImageInput(size=96, channels=3)

CASES = [
    ("mlp", FeaturesInput(size=1)),
    ("mlp", FeaturesInput(size=50)),
    ("linear", FeaturesInput(size=1)),
    ("linear", FeaturesInput(size=50)),
    *[("small_cnn", ImageInput(size=size, channels=1)) for size in (4, 8, 24, 28)],
    *[("small_cnn", ImageInput(size=size, channels=3)) for size in (32, 36, 64, 80)],
    *[(name, COLOUR) for name in ("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "regnet_y_400mf", "vgg11_bn")],
    *[(name, GREY) for name in ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "mnasnet1_0")],
    *[(name, LARGE) for name in ("resnet18", "mobilenet_v3_small", "mobilenet_v3_large")],
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1].size}")
def network(request: pytest.FixtureRequest) -> Network:
    name, shape = request.param
    return build(NetworkSpec(name, shape, (8, 2, 5), seed=1), {})


def test_the_catalog_s_rows_are_all_tried_or_of_the_one_adapter() -> None:
    assert {name for name, _ in CASES} | set(NAMES) == set(CATALOG)


@torch.no_grad()
def test_features_have_the_width_and_differ_between_items(network: Network) -> None:
    features = network.features(example(network.spec.input, 3))

    assert features.shape == (3, network.width)
    assert features.dtype == torch.float32
    assert torch.isfinite(features).all()
    assert not torch.allclose(features[0], features[1])


@torch.no_grad()
def test_it_answers_with_no_label_one_and_three(network: Network) -> None:
    inputs = example(network.spec.input, 2)
    logits = network(inputs)
    assert logits.shape == (2, 3)
    for labels in ((), (5,)):
        fewer = Network(network.spec, network.backbone, type(network.head)(network.width, labels, 1), network.width)
        assert fewer(inputs).shape == (2, len(labels))


@torch.no_grad()
def test_an_item_gets_the_same_answer_alone(network: Network) -> None:
    inputs = example(network.spec.input, 3)
    alone = torch.cat([network(item[None]) for item in inputs])
    torch.testing.assert_close(network(inputs), alone, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_saved_and_loaded_it_is_bit_equal(network: Network) -> None:
    again = build(NetworkSpec.from_json({**network.spec.to_json(), "seed": 2}), {})
    inputs = example(network.spec.input, 2)
    assert not torch.equal(again(inputs), network(inputs))

    load_weights(again, to_bytes(network.state_dict()))

    assert torch.equal(again(inputs), network(inputs))
    assert backbone_digest(again) == backbone_digest(network)


@torch.no_grad()
def test_mapped_from_a_file_into_a_skeleton_it_is_bit_equal(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(to_bytes(network.state_dict()))
    inputs = example(network.spec.input, 2)
    form = skeleton(NetworkSpec.from_json({**network.spec.to_json(), "seed": 2}), {})
    tensors = mapped(path)

    form.require_fit(network.spec, tensors, go_on)
    again = form.filled(tensors).module

    assert torch.equal(again(inputs), network.raw_features(inputs))
    assert tensors_digest(again.state_dict()) == backbone_digest(network)
    assert all(one.requires_grad for one in again.parameters())
    held = {f"backbone.{name}": one.data_ptr() for name, one in again.state_dict().items()}
    assert held == {name: one.data_ptr() for name, one in tensors.items() if name.startswith("backbone.")}


@torch.no_grad()
def test_growth_leaves_the_old_logits_bit_equal(network: Network) -> None:
    inputs = example(network.spec.input, 3)
    features = network.features(inputs)

    grown = grow(network, [1, 99], features, torch.tensor([1, 8, 99]))

    assert grown.spec.labels == (8, 2, 5, 1, 99)
    assert torch.equal(grown(inputs)[:, :3], network(inputs))
    assert backbone_digest(grown) == backbone_digest(network)


def test_every_parameter_learns_in_training_mode_from_a_batch_of_one(network: Network) -> None:
    network.train()
    network.zero_grad()
    try:
        network(example(network.spec.input, 1)).square().sum().backward()
    finally:
        network.eval()
    assert [name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []
    network.zero_grad()


def test_it_takes_what_its_preprocessor_gives(network: Network) -> None:
    assert preprocessor_for(network.spec).batch([]).shape[1:] == example(network.spec.input).shape[1:]
