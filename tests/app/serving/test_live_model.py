"""Publishing: the later decision wins, whatever arrives later."""

import torch

from app.networks.catalog import build
from app.networks.preprocessor import preprocessor_for
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput
from app.serving.live_model import LiveModel
from app.serving.predictor import Predictor


def predictor(version: int) -> Predictor:
    spec = NetworkSpec("mlp", FeaturesInput(size=4), labels=(1, 2))
    return Predictor(
        model_id=1,
        model="iris",
        version_id=f"id-{version}",
        version=version,
        network=build(spec, {}),
        preprocessor=preprocessor_for(spec),
        labels=["a", "b"],
        device=torch.device("cpu"),
    )


def live_model(points: list[str] | None = None) -> LiveModel:
    said = points if points is not None else []
    return LiveModel("iris", 1, warm_versions=2, kill_point=said.append)


def version_of(live: LiveModel) -> int:
    return live.predictor().version


def test_a_late_load_does_not_overwrite_a_newer_decision() -> None:
    live = live_model()
    assert live.publish(predictor(2), epoch=5)

    assert not live.publish(predictor(9), epoch=4)

    assert version_of(live) == 2
    assert live.warm("id-9") is None


def test_a_rollback_is_a_later_decision_for_an_earlier_version() -> None:
    live = live_model()
    live.publish(predictor(1), epoch=1)
    live.publish(predictor(2), epoch=2)
    warm = live.warm("id-1")
    assert warm is not None

    assert live.publish(warm, epoch=3)

    assert version_of(live) == 1
    assert live.swaps == 3


def test_the_last_versions_stay_warm_by_use() -> None:
    live = live_model()
    for number in range(1, 5):
        live.publish(predictor(number), epoch=number)

    assert live.warm_ids() == ["id-2", "id-3", "id-4"]
    assert live.warm_number(3) is not None
    assert live.warm_number(1) is None


def test_a_swap_passes_its_named_points_in_order() -> None:
    points: list[str] = []

    model = live_model(points)

    model.publish(predictor(1), epoch=1)
    assert points == [], "the first version swaps nothing out"
    model.publish(predictor(2), epoch=2)

    assert points == ["before_swap", "during_swap", "after_swap"]
