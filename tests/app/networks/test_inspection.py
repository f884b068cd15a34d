"""What is found in users' own networks: the good ones pass whole, each fault is named with what to do."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from app.errors import InvalidNetwork
from app.networks.backbone import cut
from app.networks.catalog import build
from app.networks.inspection import Finding, inspect_builder
from app.networks.spec import NetworkSpec
from app.networks.user_network import builder_at
from app.recipe import FeaturesInput, ImageInput

NUMBERS = FeaturesInput(size=6)
PICTURES = ImageInput(size=16, channels=3)


class Written(nn.Module):
    """A network whose forward is a function, so that each test states its fault in a line."""

    def __init__(self, classes: int, run: Callable[["Written", Tensor], object]) -> None:
        super().__init__()
        self.fc = nn.Linear(8, classes)  # declared before what runs before it
        self.hidden = nn.Linear(6, 8)
        self.run = run

    def forward(self, x: Tensor) -> object:
        return self.run(self, x)

    def plain(self, x: Tensor) -> Tensor:
        return self.hidden(x).relu()  # type: ignore[no-any-return]


def plain(num_classes: int) -> nn.Module:
    return Written(num_classes, lambda net, x: net.fc(net.plain(x)))


def convolutional(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Dropout(0.1), nn.Linear(128, num_classes),
    )  # fmt: skip


def with_softmax(num_classes: int) -> nn.Module:
    return Written(num_classes, lambda net, x: net.fc(net.plain(x)).softmax(1))


def in_a_dict(num_classes: int) -> nn.Module:
    return Written(num_classes, lambda net, x: {"logits": net.fc(net.plain(x))})


def fixed_classes(num_classes: int) -> nn.Module:
    return Written(10, lambda net, x: net.fc(net.plain(x)))


def by_weight(num_classes: int) -> nn.Module:
    return Written(num_classes, lambda net, x: functional.linear(net.plain(x), net.fc.weight))


def reads_the_head(num_classes: int) -> nn.Module:
    return Written(num_classes, lambda net, x: net.fc(net.plain(x)[:, : net.fc.in_features]))


def wrong_input(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(5, num_classes), nn.ReLU(), nn.Linear(num_classes, num_classes))


def only_a_layer(num_classes: int) -> nn.Module:
    return nn.Linear(6, num_classes)


def by_batch(num_classes: int) -> nn.Module:
    return Written(num_classes, lambda net, x: net.fc(net.plain(x - x.mean(0))))


def squeezing(num_classes: int) -> nn.Module:
    return Written(num_classes, lambda net, x: net.fc(net.plain(x).squeeze()))


def random_in_eval(num_classes: int) -> nn.Module:
    return Written(num_classes, lambda net, x: net.fc(functional.dropout(net.plain(x), 0.5)))


def detached(num_classes: int) -> nn.Module:
    return Written(num_classes, lambda net, x: net.fc(net.plain(x).detach()))


def drawn_elsewhere(num_classes: int) -> nn.Module:
    scale = torch.rand(8, generator=torch.Generator().manual_seed(random.SystemRandom().randrange(1 << 30)))
    return Written(num_classes, lambda net, x: net.fc(net.plain(x) * scale))  # neither a parameter nor a buffer


def tied(num_classes: int) -> nn.Module:
    twice = nn.Linear(6, 6)
    return nn.Sequential(twice, nn.Tanh(), twice, nn.Tanh(), nn.Linear(6, num_classes))


def frozen_and_dead(num_classes: int) -> nn.Module:
    dead = nn.Linear(6, 8).requires_grad_(False)
    nn.init.zeros_(dead.weight)
    return nn.Sequential(dead, nn.Linear(8, num_classes))


def no_module(num_classes: int) -> object:
    return num_classes


def failing(num_classes: int) -> nn.Module:
    raise KeyError("weights")


def inspected(builder: Callable[[int], object], shape: ImageInput | FeaturesInput = NUMBERS) -> dict[str, Finding]:
    return {finding.name: finding for finding in inspect_builder(f"{__name__}:{builder.__name__}", shape)}


@pytest.mark.parametrize(("builder", "shape"), [(plain, NUMBERS), (convolutional, PICTURES), (tied, NUMBERS)])
def test_good_networks_pass_whole(builder: Callable[[int], nn.Module], shape: ImageInput | FeaturesInput) -> None:
    findings = inspected(builder, shape)
    assert [finding for finding in findings.values() if not finding.ok] == []
    assert list(findings) == [
        "backbone and head",
        "same answers twice",
        "batch of one",
        "growth",
        "save and load",
        "gradients",
        "learning",
    ]


def test_the_head_is_the_last_in_execution_and_not_in_declaration() -> None:
    assert "'fc'" in inspected(plain)["backbone and head"].words
    assert cut(plain(4), NUMBERS, 4).width == 8


@pytest.mark.parametrize(
    ("builder", "words"),
    [
        (with_softmax, "without softmax"),
        (in_a_dict, "gave a dict"),
        (fixed_classes, "one logit a label"),
        (by_weight, "not what a torch.nn.Linear gave"),
        (reads_the_head, "not read its weight or sizes"),
        (wrong_input, "does not take a batch"),
        (only_a_layer, "single Linear layer"),
        (random_in_eval, "no randomness in eval mode"),
        (no_module, "gave a int"),
        (failing, "KeyError"),
    ],
)
def test_networks_without_a_head_to_take_off_are_told_why(builder: Callable[[int], object], words: str) -> None:
    findings = inspected(builder)
    assert list(findings) == ["backbone and head"]
    assert not findings["backbone and head"].ok
    assert words in findings["backbone and head"].words


@pytest.mark.parametrize(
    ("builder", "name", "words"),
    [
        (by_batch, "batch of one", "depends on the others"),
        (squeezing, "batch of one", "batch"),
        (detached, "gradients", "backbone.hidden.weight"),
        (drawn_elsewhere, "same answers twice", "through torch"),
        (drawn_elsewhere, "save and load", "persistent"),
        (frozen_and_dead, "learning", "should fall"),
    ],
)
def test_each_fault_is_found_by_its_name(builder: Callable[[int], object], name: str, words: str) -> None:
    finding = inspected(builder)[name]
    assert not finding.ok
    assert words in finding.words


def test_inspecting_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    inspected(plain)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("target", "words"),
    [("nothing", "module:function"), ("no_such_module_x:build", "cannot be imported"), ("json:nope", "no function")],
)
def test_builders_that_are_not_there_are_named(target: str, words: str) -> None:
    with pytest.raises(InvalidNetwork, match=words):
        builder_at(target)


def test_a_builder_of_the_settings_is_an_architecture() -> None:
    network = build(NetworkSpec("mine", PICTURES, (3, 1)), {"mine": f"{__name__}:convolutional"})
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 2)
    assert network.features(torch.zeros(2, 3, 16, 16)).shape == (2, 128)
