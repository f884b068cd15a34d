"""Answers: in order, the best first, and never by a network that cannot answer."""

import pytest
import torch

from app.errors import InvalidItem
from app.networks.catalog import build
from app.networks.features import features_content
from app.networks.preprocessor import preprocessor_for
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput, Input
from app.serving.predictor import Predictor


def predictor(shape: Input, labels: tuple[str, ...], spoil: float | None = None) -> Predictor:
    architecture = "mlp" if isinstance(shape, FeaturesInput) else "small_cnn"
    spec = NetworkSpec(architecture, shape, labels=tuple(range(1, len(labels) + 1)))
    network = build(spec, {})
    if spoil is not None:
        with torch.no_grad():
            network.head.bias[0] = spoil
    return Predictor(
        model_id=1,
        model="m",
        version_id="id",
        version=1,
        network=network,
        preprocessor=preprocessor_for(spec),
        labels=labels,
        device=torch.device("cpu"),
    )


def test_the_best_labels_come_first_and_no_more_than_asked() -> None:
    asked = predictor(FeaturesInput(size=2), ("a", "b", "c"), spoil=20.0)
    items = asked.decode_many([features_content([1.0, 2.0]), features_content([3.0, 4.0])])
    assert not any(isinstance(item, InvalidItem) for item in items)

    answers = asked.predict(items, top_k=2)

    assert [answer.label for answer in answers] == ["a", "a"]
    assert [len(answer.top) for answer in answers] == [2, 2]
    (_, first), (_, second) = answers[0].top
    assert answers[0].score == first > second
    assert sum(score for _, score in asked.predict(items, top_k=99)[0].top) == pytest.approx(1.0)


def test_without_classes_there_is_no_label() -> None:
    asked = predictor(FeaturesInput(size=2), ())

    answer = asked.predict([torch.zeros(2)])[0]

    assert (answer.label, answer.score, answer.top) == (None, None, ())


def test_an_input_that_does_not_fit_is_refused() -> None:
    one, other = predictor(FeaturesInput(size=2), ("a",)).decode_many(list(map(features_content, ([1.0], [1.0, 2.0]))))
    assert isinstance(one, InvalidItem)
    assert isinstance(other, torch.Tensor)
