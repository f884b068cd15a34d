"""A delta holds what changed and nothing else, and is believed no sooner than a whole file."""

import copy

import pytest
import torch
from torch import Tensor

from app.errors import Corrupt, InvalidNetwork
from app.networks.backbone import Backbone
from app.networks.catalog import build
from app.networks.delta import apply_delta, delta_of
from app.networks.growth import grow
from app.networks.network import Network
from app.networks.projection import Projection
from app.networks.serialization import backbone_digest, from_bytes, to_bytes
from app.networks.spec import NetworkSpec
from app.networks.standardize import standardize
from app.recipe import FeaturesInput, ImageInput

NUMBERS = FeaturesInput(size=4)


def network(labels: tuple[int, ...] = (2, 5), projection: int = 0) -> Network:
    return build(NetworkSpec("mlp", NUMBERS, labels, projection=projection), {})


def backbone(of: Network) -> Backbone:
    return Backbone(of.backbone, of.width)


def taught(base: Network) -> Network:
    """A copy with another head."""
    child = copy.deepcopy(base)
    with torch.no_grad():
        child.head.weight.add_(1.0)
        child.head.bias.add_(0.5)
    return child


def delta(child: Network, base: Network) -> dict[str, Tensor]:
    return delta_of(child.state_dict(), base.state_dict())


def test_the_head_is_always_in_it_and_what_did_not_change_never() -> None:
    base = network()
    assert list(delta(base, base)) == ["head.weight", "head.bias"]
    assert list(delta(taught(base), base)) == ["head.weight", "head.bias"]


def test_a_buffer_that_moved_is_in_it() -> None:
    base = network()
    child = taught(base)
    standardize(child, torch.randn(5, 4))
    assert set(delta(child, base)) == {
        "head.weight",
        "head.bias",
        *(f"backbone.standardize.{name}" for name in ("mean", "std", "count")),
    }


def test_a_zero_that_changed_its_sign_is_a_change_since_the_digest_sees_it() -> None:
    base = network()
    child = copy.deepcopy(base)
    with torch.no_grad():
        child.backbone.get_parameter("hidden.0.bias")[0] = 0.0
        base.backbone.get_parameter("hidden.0.bias")[0] = -0.0
    assert "backbone.hidden.0.bias" in delta(child, base)


def test_a_backbone_of_another_make_is_no_base() -> None:
    other = build(NetworkSpec("small_cnn", ImageInput(size=8, channels=1), (1,)), {})
    with pytest.raises(InvalidNetwork, match="the base lacks"):
        delta(network(), other)


def test_a_head_alone_comes_back_over_the_base_s_own_module() -> None:
    base = network()
    child = taught(base)

    back = apply_delta(child.spec, backbone(base), from_bytes(to_bytes(delta(child, base))))

    assert back.backbone is base.backbone
    assert torch.equal(back(torch.ones(3, 4)), child(torch.ones(3, 4)))
    assert not back.training


def test_a_moved_buffer_comes_back_and_all_else_stays_the_base_s() -> None:
    base = network()
    child = taught(base)
    standardize(child, torch.randn(5, 4))
    before = backbone_digest(base)

    back = apply_delta(child.spec, backbone(base), from_bytes(to_bytes(delta(child, base))))

    assert backbone_digest(back) == backbone_digest(child)
    assert backbone_digest(base) == before
    assert back.backbone is not base.backbone
    weights = [one.backbone.get_parameter("hidden.0.weight") for one in (back, base)]
    assert weights[0] is weights[1]


def test_the_head_may_have_other_rows_than_the_base_s() -> None:
    base = network()
    child = grow(base, [9, 1])

    back = apply_delta(child.spec, backbone(base), from_bytes(to_bytes(delta(child, base))))

    assert back.spec.labels == (2, 5, 9, 1)
    assert torch.equal(back(torch.ones(3, 4)), child(torch.ones(3, 4)))


def test_a_projection_may_come_between_that_the_base_has_not() -> None:
    base, child = network(), network(projection=30)
    drawn = Projection(base.width, 30, child.spec.seed)

    back = apply_delta(child.spec, backbone(base), from_bytes(to_bytes(delta(child, base))), projection=drawn)

    assert back.projection is drawn
    assert torch.equal(back(torch.ones(3, 4)), child(torch.ones(3, 4)))


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("head.bias", None, "missing head.bias"),
        ("head.weight", torch.zeros(3, 64), r"head\.weight is .*\(3, 64\)"),
        ("head.weight", torch.zeros(2, 63), r"head\.weight is .*\(2, 63\)"),
        ("head.bias", torch.zeros(2, dtype=torch.float64), "float64"),
        ("head.bias", torch.tensor([0.0, float("nan")]), "not finite"),
        ("backbone.none", torch.zeros(1), "not expected backbone.none"),
        ("projection.matrix", torch.zeros(1), "not expected projection.matrix"),
        ("backbone.standardize.mean", torch.zeros(5), "standardize.mean"),
        ("backbone.standardize.mean", torch.full((4,), float("inf")), "not finite"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name: str, tensor: Tensor | None, words: str) -> None:
    base = network()
    before = to_bytes(base.state_dict())
    tensors = {**delta(taught(base), base)}
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    with pytest.raises(Corrupt, match=words):
        apply_delta(base.spec, backbone(base), from_bytes(to_bytes(tensors)))
    assert to_bytes(base.state_dict()) == before


def test_bytes_that_are_no_safetensors_are_corrupt() -> None:
    base = network()
    with pytest.raises(Corrupt):
        apply_delta(base.spec, backbone(base), from_bytes(b"\x80\x04pickle" * 10))
