"""Weights laid end to end are the network's own until they are released."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from worker.learning.weight_vectors import WeightVectors


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 3, sparse=True)
        self.out = nn.Linear(3, 2)
        self.unused = nn.Parameter(torch.ones(4))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.out(self.words(rows))
        return answers


def test_a_vector_and_its_parameters_are_the_same_numbers() -> None:
    net = Net()
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    weights = WeightVectors(dict(net.named_parameters()), {"out.weight": 0.1, "out.bias": 0.1})
    assert weights.names == [["unused", "words.weight"], ["out.weight", "out.bias"]]
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name])
        place = weights.places[name]
        assert torch.equal(place.of(weights.vectors[place.vector]), parameter)
    weights.vectors[1].fill_(2.0)
    assert bool((net.out.weight == 2.0).all())
    with torch.no_grad():
        net.out.bias.fill_(3.0)
    assert weights.vectors[1].tolist() == [2.0] * 6 + [3.0] * 2


def test_gradients_come_in_sparse_ones_too_and_zeros_where_the_loss_did_not_reach() -> None:
    net, twin = Net(), Net()
    twin.load_state_dict(net.state_dict())
    weights = WeightVectors(dict(net.named_parameters()))
    rows, targets = torch.tensor([0, 3, 3]), torch.tensor([0, 1, 1])
    for one in (net, twin):
        functional.cross_entropy(one(rows), targets).backward()  # type: ignore[no-untyped-call]
    for name, parameter in twin.named_parameters():
        found = weights.places[name].of(weights.gradients[0])
        wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
        assert torch.allclose(found, wanted, atol=1e-7), name
    weights.clear()
    assert not weights.gradients[0].any()
    functional.cross_entropy(net(rows), targets).backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(weights.places["out.bias"].of(weights.gradients[0]), twin.out.bias.grad, atol=1e-7)


@pytest.mark.parametrize("most", [math.inf, 0.5])
def test_clipping_counts_all_vectors_as_one_gradient(most: float) -> None:
    net = Net()
    weights = WeightVectors(dict(net.named_parameters()), {"unused": "apart"})
    for gradient in weights.gradients:
        gradient.fill_(1.0)
    count = sum(parameter.numel() for parameter in net.parameters())
    assert weights.clip(most) == pytest.approx(count**0.5, rel=1e-6)
    norm = torch.cat(weights.gradients).norm().item()
    assert norm == pytest.approx(min(most, count**0.5), rel=1e-6)


def test_released_parameters_have_memory_of_their_own() -> None:
    net = Net()
    weights = WeightVectors(dict(net.named_parameters()))
    weights.release()
    for parameter in net.parameters():
        assert parameter.untyped_storage().nbytes() == parameter.nbytes
        assert parameter.grad is None
    weights.vectors[0].zero_()
    assert bool((net.unused == 1.0).all())
