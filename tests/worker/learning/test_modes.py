"""Eval mode for a moment, and back."""

import pytest
import torch
from torch import nn

from worker.learning.modes import answering


class Merging(nn.Linear):
    """Does something of its own when its mode changes, as some adapters do."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.asked: list[bool] = []

    def train(self, mode: bool = True) -> "Merging":
        super().train(mode)
        self.asked.append(mode)
        return self


def stumble(modules: list[nn.Module]) -> None:
    assert not any(module.training for module in modules)
    raise ZeroDivisionError


def test_each_layer_gets_back_the_mode_it_had_even_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)).train()
    network[1].eval()
    modules = list(network.modules())
    before = [module.training for module in modules]
    with pytest.raises(ZeroDivisionError), answering(modules):
        stumble(modules)
    assert [module.training for module in modules] == before == [True, True, False, True]


def test_a_layer_with_a_way_of_its_own_is_asked() -> None:
    layer = Merging()
    network = nn.Sequential(layer, nn.Dropout(0.5)).train()
    layer.asked.clear()
    with answering(list(network.modules())):
        assert layer.asked == [False]
        assert torch.equal(network(torch.ones(1, 2)), layer(torch.ones(1, 2)))
    assert not network.training  # who steps next sees it and puts it back
