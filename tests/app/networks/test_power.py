"""A power of features before the head: a fixed formula, part of the spec, the same wherever a version answers."""

from dataclasses import replace

import pytest
import torch

from app.networks.backbone import example
from app.networks.catalog import build
from app.networks.growth import grow
from app.networks.power import Power
from app.networks.serialization import backbone_digest, load_weights, to_bytes
from app.networks.spec import NetworkSpec
from app.recipe import ImageInput

SPEC = NetworkSpec("small_cnn", ImageInput(size=8, channels=1), (4, 7), power=0.5)


def test_sizes_are_raised_and_signs_stay() -> None:
    rows = torch.tensor([[4.0, -9.0, 0.0]])
    torch.testing.assert_close(Power(0.5)(rows), torch.tensor([[2.0, -3.0, 0.0]]), atol=0.04, rtol=0)
    torch.testing.assert_close(Power(1.0)(rows), rows)


@pytest.mark.parametrize("exponent", [0.1, 0.5, 0.7, 1.0])
def test_order_is_kept_and_slopes_are_finite_where_a_rectifier_gave_zero(exponent: float) -> None:
    rows = torch.linspace(-6, 6, 101, requires_grad=True)
    raised = Power(exponent)(rows)
    assert bool((raised.diff() > 0).all())
    raised.sum().backward()
    assert rows.grad is not None
    assert bool(rows.grad.isfinite().all())
    assert bool(Power(exponent)(torch.tensor([3.4e38, -3.4e38])).isfinite().all())


@torch.no_grad()
def test_the_head_is_fed_powers_and_what_the_backbone_makes_stays_as_it_is() -> None:
    plain, raised = build(replace(SPEC, power=None), {}), build(SPEC, {})
    inputs = example(SPEC.input, 3)
    made = plain.raw_features(inputs)
    assert torch.equal(raised.raw_features(inputs), made)
    assert backbone_digest(raised) == backbone_digest(plain)
    assert torch.equal(raised.features(inputs), Power(0.5)(made))
    assert torch.equal(raised(inputs), raised.head(Power(0.5)(made)))


@torch.no_grad()
def test_a_projection_is_fed_powers_too() -> None:
    network = build(replace(SPEC, projection=30), {})
    inputs = example(SPEC.input, 3)
    expected = torch.relu(Power(0.5)(network.raw_features(inputs)) @ network.projection.matrix)
    torch.testing.assert_close(network.features(inputs), expected)


@torch.no_grad()
def test_a_saved_network_answers_alike_and_a_grown_one_keeps_its_power() -> None:
    network = build(SPEC, {})
    inputs = example(SPEC.input, 3)
    copy = build(replace(NetworkSpec.from_json(SPEC.to_json()), seed=5), {})
    load_weights(copy, to_bytes(network.state_dict()))
    assert torch.equal(copy(inputs), network(inputs))
    grown = grow(network, [9])
    assert torch.equal(grown(inputs)[:, :2], network(inputs))
