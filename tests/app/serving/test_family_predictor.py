"""Several heads asked at once: what they share is computed once, and each answers as it does alone."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from app.networks.backbone import Backbone
from app.networks.catalog import build, with_head
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput
from app.serving.family_predictor import FamilyPredictor
from app.serving.predictor import Predictor

SPEC = NetworkSpec("mlp", FeaturesInput(size=4), labels=(1, 2, 3))
ITEMS = list(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))


def predictor(name: str, network: Network, labels: Sequence[str]) -> Predictor:
    return Predictor(
        model_id=1,
        model=name,
        version_id=name,
        version=1,
        network=network,
        preprocessor=preprocessor_for(network.spec),
        labels=labels,
        device=torch.device("cpu"),
    )


def family(first: Network, second: Network) -> FamilyPredictor:
    return FamilyPredictor("pair", [predictor("one", first, ["a", "b", "c"]), predictor("two", second, ["x", "y"])])


def runs_of(module: nn.Module) -> list[int]:
    """Sizes of the batches that go through a module from now on."""
    sizes: list[int] = []
    module.register_forward_hook(lambda _module, given, _output: sizes.append(len(given[0])))
    return sizes


def relative(network: Network) -> Network:
    """Another head on the same backbone, behind a power and a projection of its own."""
    spec = NetworkSpec("mlp", FeaturesInput(size=4), labels=(7, 9), seed=3, projection=32, power=0.5)
    return with_head(spec, Backbone(network.backbone, network.width))


def test_one_backbone_runs_once_for_all_heads() -> None:
    network = build(SPEC, {})
    asked = family(network, relative(network))
    runs = runs_of(network.backbone)
    answers = asked.predict(ITEMS, top_k=2)
    assert runs == [5]
    assert [len(of_input) for of_input in answers] == [2] * 5
    assert [len(one.top) for one in answers[0]] == [2, 2]


def test_each_member_answers_as_it_does_alone() -> None:
    network = build(SPEC, {})
    asked = family(network, relative(network))
    together = list(zip(*asked.predict(ITEMS), strict=True))
    assert [list(column) for column in together] == [member.predict(ITEMS) for member in asked.members]


def test_members_on_different_backbones_each_run_theirs() -> None:
    network = build(SPEC, {})
    rolled_back = copy.deepcopy(relative(network))
    runs = [runs_of(network.backbone), runs_of(rolled_back.backbone)]
    family(network, rolled_back).predict(ITEMS)
    assert runs == [[5], [5]]


def test_a_member_without_classes_answers_none_and_asks_nothing_of_the_backbone() -> None:
    network = build(NetworkSpec("mlp", FeaturesInput(size=4)), {})
    runs = runs_of(network.backbone)
    asked = FamilyPredictor("pair", [predictor("empty", network, [])])
    assert [one.label for (one,) in asked.predict(ITEMS)] == [None] * 5
    assert runs == []
    assert asked.predict([]) == []
