"""Growing never moves what was there, whatever the sizes, ids and order."""

import pytest
import torch
from torch import nn

from app.networks.growth import grow
from app.networks.head import Head, fresh_row
from app.networks.network import Network, batch_norms
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput


def network(labels: tuple[int, ...], width: int = 16, seed: int = 3) -> Network:
    spec = NetworkSpec("identity", FeaturesInput(size=width), labels, seed=seed)
    return Network(spec, nn.Identity(), Head(width, labels, seed), width).eval()


def clusters(label_ids: list[int], width: int = 16, each: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Features around one point a label, all on a large common mean, as rectified features have it."""
    generator = torch.Generator().manual_seed(5)
    points = torch.rand(10, width, generator=generator) * 4 + 3
    features = [points[i % 10] + 0.2 * torch.randn(each, width, generator=generator) for i in label_ids]
    return torch.cat(features), torch.tensor(label_ids).repeat_interleave(each)


@pytest.mark.parametrize("width", [1, 5, 64, 100, 512, 1280])
def test_growth_leaves_old_logits_bit_equal_at_every_size(width: int) -> None:
    current = network((), width)
    for label_id, count in enumerate([1, 1, 1, 2, 5, 53, 1, 1, 64, 1, 200]):
        inputs = {batch: torch.randn(batch, width) for batch in (1, 2, 7, 33)}
        before = {batch: current(x) for batch, x in inputs.items()}
        first = len(current.spec.labels)
        current = grow(current, [10_000 * label_id + n for n in range(count)])
        for batch, x in inputs.items():
            assert current(x).shape == (batch, first + count)
            assert torch.equal(current(x)[:, :first], before[batch])


def test_a_plain_linear_layer_would_not_do() -> None:
    moved = False
    for rows in range(1, 40):
        weight, x = torch.randn(rows + 1, 512), torch.randn(1, 512)
        plain = nn.functional.linear
        moved |= not torch.equal(plain(x, weight)[:, :rows], plain(x, weight[:rows]))
    if not moved:
        pytest.skip("this machine's matrix product happens to be stable")


def test_label_order_is_by_arrival_and_never_by_id() -> None:
    grown = grow(grow(network((9, 4)), [7]), [1, 4, 1, 0])

    assert grown.spec.labels == (9, 4, 7, 1, 0)
    assert torch.equal(grown.head.weight[3], fresh_row(16, 3, 1))


def test_growth_from_nothing_and_without_samples() -> None:
    empty = network(())
    assert empty(torch.randn(3, 16)).shape == (3, 0)
    assert grow(empty, []).spec.labels == ()
    assert grow(empty, [3, 2])(torch.randn(3, 16)).shape == (3, 2)


def test_the_grown_network_shares_nothing_with_the_old_one() -> None:
    spec = NetworkSpec("linear", FeaturesInput(size=4), (0,))
    old = Network(spec, nn.Linear(4, 4), Head(4, (0,), 0), 4)
    grown = grow(old, [1])
    before = {name: value.clone() for name, value in old.state_dict().items()}

    with torch.no_grad():
        for parameter in grown.parameters():
            parameter.zero_()

    assert all(torch.equal(old.state_dict()[name], value) for name, value in before.items())


def test_growth_draws_nothing_from_the_global_generator() -> None:
    state = torch.random.get_rng_state()
    grow(network((1,)), [2, 3])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_first_labels_are_predicted_right_from_their_means() -> None:
    features, targets = clusters([2, 0, 1])
    grown = grow(network(()), [2, 0, 1], features, targets)

    found = torch.tensor(grown.spec.labels)[grown(features).argmax(1)]

    assert (found == targets).float().mean() > 0.95


def test_a_new_label_is_predicted_at_once_and_old_ones_still_are() -> None:
    features, targets = clusters([0, 1, 2, 3])
    known = targets != 3
    old = grow(network(()), [0, 1, 2], features[known], targets[known])
    grown = grow(old, [3], features, targets)

    found = torch.tensor(grown.spec.labels)[grown(features).argmax(1)]

    assert (found[~known] == 3).float().mean() > 0.8
    assert (found[known] == targets[known]).float().mean() > 0.8
    torch.testing.assert_close(grown.head.weight[3].norm(), old.head.weight.norm(dim=1).mean())


def test_a_new_label_whose_only_samples_are_its_own_ties_with_the_best_old_one() -> None:
    features, targets = clusters([0, 1, 3])
    known = targets != 3
    old = grow(network(()), [0, 1], features[known], targets[known])
    grown = grow(old, [3], features[~known], targets[~known])

    assert (grown(features[~known]).argmax(1) == 2).any()


def test_features_that_are_all_zero_give_a_random_row() -> None:
    grown = grow(network((5,)), [6], torch.zeros(4, 16), torch.full((4,), 6))
    assert torch.equal(grown.head.weight[1], fresh_row(16, 3, 6))


def test_parameters_hold_exactly_the_rows_and_all_get_gradients() -> None:
    net = network((4, 2, 0))
    net(torch.randn(5, 16)).square().sum().backward()

    assert net.head.weight.shape == (3, 16)
    assert net.head.bias.shape == (3,)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


def test_growth_keeps_what_may_learn_and_the_mode() -> None:
    net = network((4,)).train()
    net.head.bias.requires_grad_(False)

    grown = grow(net, [5])

    assert grown.training
    assert [p.requires_grad for p in grown.head.parameters()] == [True, False]


def test_batch_norms_are_found_wherever_they_are() -> None:
    norm = nn.BatchNorm1d(3)
    assert batch_norms(nn.Sequential(nn.Linear(3, 3), nn.Sequential(norm), nn.GroupNorm(1, 3))) == [norm]
