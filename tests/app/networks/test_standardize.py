import torch
from torch import nn

from app.networks.standardize import FROZEN_AFTER, Standardize, standardize


def rows(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator) * torch.tensor([1e6, 1.0, 1e-6]) + torch.tensor([5e6, 0.0, 1e-5])


def test_statistics_are_those_of_all_rows_however_they_came() -> None:
    data = rows(150)
    layer = Standardize(3)
    for part in torch.split(data, [1, 2, 7, 40, 100]):
        layer.observe(part)

    assert int(layer.count) == 150
    torch.testing.assert_close(layer.mean, data.mean(0), rtol=1e-4, atol=0)
    torch.testing.assert_close(layer.std, data.std(0, correction=0), rtol=1e-4, atol=0)
    torch.testing.assert_close(layer(data).std(0, correction=0), torch.ones(3), rtol=1e-2, atol=0)


def test_they_stand_still_after_200_rows() -> None:
    layer = Standardize(3)
    layer.observe(rows(FROZEN_AFTER + 100))
    frozen = {name: value.clone() for name, value in layer.state_dict().items()}

    layer.observe(rows(50, seed=1) * 100)

    assert int(layer.count) == FROZEN_AFTER
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in frozen.items())
    torch.testing.assert_close(layer.mean, rows(FROZEN_AFTER + 100)[:FROZEN_AFTER].mean(0), rtol=1e-4, atol=0)


def test_constant_columns_and_columns_that_begin_to_move_do_not_blow_up() -> None:
    layer = Standardize(2)
    layer.observe(torch.tensor([[0.1, 1e8]] * 10))

    assert layer(torch.tensor([[0.1, 1e8]])).abs().max() < 1e-6
    assert layer(torch.tensor([[1e30, -3e38]])).abs().max() < 100

    layer.observe(torch.tensor([[0.2, 2e8]] * 10))
    torch.testing.assert_close(layer.mean, torch.tensor([0.15, 1.5e8]))
    torch.testing.assert_close(layer.std, torch.tensor([0.05, 0.5e8]))


def test_far_values_keep_their_order() -> None:
    layer = Standardize(1)
    layer.observe(torch.randn(100, 1))
    out = layer(torch.logspace(-3, 30, 50)[:, None])[:, 0]
    assert (out.diff() > 0).all()


def test_every_standardising_layer_of_a_network_sees_the_batch() -> None:
    network = nn.Sequential(Standardize(3), nn.Linear(3, 2))
    standardize(network, rows(20))
    standardize(nn.Linear(3, 2), rows(20))  # one without such a layer is left alone
    layer = network[0]
    assert isinstance(layer, Standardize)
    assert int(layer.count) == 20
