"""A version answers before it is asked: by itself, at the batch sizes in use, and never by what is no number."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from app.errors import Corrupt
from app.networks.head import Head
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput, ImageInput, Input
from app.serving.predictor import Predictor
from app.serving.recent_inputs import RecentInputs
from app.serving.warm_up import golden_item, warm_up


class Seeing(nn.Module):
    """A backbone that keeps the first number of each item of each batch, and fails on numbers it is told to."""

    def __init__(self, fails_at: float = 99.0) -> None:
        super().__init__()
        self.seen: list[list[float]] = []
        self._fails_at = fails_at

    def forward(self, inputs: Tensor) -> Tensor:
        first = inputs.flatten(1)[:, :3]
        self.seen.append(first[:, 0].tolist())
        if self._fails_at in self.seen[-1]:
            raise RuntimeError("no such row")
        return first


def predictor(
    backbone: nn.Module, shape: Input | None = None, labels: tuple[str, ...] = ("a", "b"), spoil: float = 0.0
) -> Predictor:
    spec = NetworkSpec("mlp", shape or FeaturesInput(size=3), labels=tuple(range(1, len(labels) + 1)))
    head = Head(3, spec.labels, 0)
    if labels:
        with torch.no_grad():
            head.bias[0] = spoil
    return Predictor(
        model_id=1,
        model="m",
        version_id="id",
        version=1,
        network=Network(spec, backbone, head, 3).eval(),
        preprocessor=preprocessor_for(spec),
        labels=labels,
        device=torch.device("cpu"),
    )


def noted(*batches: list[float]) -> RecentInputs:
    clock = itertools.count()
    recent = RecentInputs(lambda: next(clock))
    for batch in batches:
        recent.note([torch.full((3,), value) for value in batch])
    return recent


def test_recent_items_are_asked_at_the_batch_sizes_in_use() -> None:
    backbone = Seeing()

    warm_up(predictor(backbone), noted([1.0, 2.0], [3.0], [4.0, 5.0, 6.0, 7.0, 8.0], [9.0, 10.0]))

    assert backbone.seen == [[0.0], [2.0], [2.0, 3.0], [2.0, 3.0, 8.0, 10.0, 2.0]]


def test_a_made_up_item_is_asked_where_nothing_was_asked_yet() -> None:
    backbone = Seeing()
    warm_up(predictor(backbone), RecentInputs())
    assert [len(batch) for batch in backbone.seen] == [1, 8]


def test_sizes_that_are_known_are_left_out() -> None:
    backbone = Seeing()
    tried = warm_up(predictor(backbone), noted([1.0], [2.0, 3.0], [4.0, 5.0, 6.0]), known_sizes={1, 3})
    assert tried == [2]
    assert backbone.seen == [[0.0], [1.0, 3.0]]


def test_over_a_warm_backbone_one_answer_is_enough() -> None:
    backbone = Seeing()
    warm_up(predictor(backbone), noted([1.0, 2.0]), backbone_is_warm=True)
    assert backbone.seen == [[0.0]]


def test_items_of_another_form_are_left_out() -> None:
    backbone = Seeing()
    recent = noted([1.0])
    recent.note([torch.ones(4), torch.ones(4)])
    warm_up(predictor(backbone), recent)
    assert backbone.seen == [[0.0], [1.0], [1.0, 1.0]]


def test_what_a_stranger_sent_keeps_no_version_from_going_live() -> None:
    for strange in (float("nan"), 7.0):
        warm_up(predictor(Seeing(fails_at=7.0)), noted([strange, strange]))


@pytest.mark.parametrize("shape", [FeaturesInput(size=3), ImageInput(size=16, channels=1)])
def test_a_network_whose_golden_answer_is_not_finite_is_not_served(shape: Input) -> None:
    warm_up(predictor(Seeing(), shape), RecentInputs())

    with pytest.raises(Corrupt, match="not finite"):
        warm_up(predictor(Seeing(), shape, spoil=float("nan")), RecentInputs())


def test_without_classes_the_features_are_tried() -> None:
    backbone = Seeing()
    warm_up(predictor(backbone, labels=()), RecentInputs())
    assert [len(batch) for batch in backbone.seen] == [1, 8]

    class Spoiled(Seeing):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs) / 0

    with pytest.raises(Corrupt, match="not finite"):
        warm_up(predictor(Spoiled(), labels=()), RecentInputs())


def test_the_sizes_are_the_largest_and_the_most_frequent() -> None:
    recent = noted(*[[0.0] * 2] * 5, *[[0.0] * 3] * 9, [0.0] * 4, [0.0] * 7)
    assert recent.sizes(3) == [2, 3, 7]
    assert recent.sizes(1) == [7]
    assert RecentInputs().sizes(3) == []


def test_only_the_last_items_are_kept() -> None:
    recent = noted(*[[float(number)] for number in range(1000)])
    assert [float(item[0]) for item in recent.items()] == [float(number) for number in range(992, 1000)]


def test_the_golden_item_is_what_the_preprocessor_gives() -> None:
    assert golden_item(NetworkSpec("small_cnn", ImageInput(size=8))).shape == (3, 8, 8)
