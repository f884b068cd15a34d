"""A head found from a kept factor is the head solved anew, for every closed form and whatever came or went since."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from worker.learning.closed_form import CLOSED_FORMS, ClosedFormSettings, discriminant, solve
from worker.learning.failure import LearningFailed
from worker.learning.kept_factor import KeptFactor
from worker.learning.scatter import Linear
from worker.learning.sums import Sums

WIDTH, COUNT, LABELS = 288, 600, (5, 2, 9)

EACH = pytest.mark.parametrize(
    ("kind", "balanced", "strength"), list(itertools.product(CLOSED_FORMS, [True, False], [1e-4, 0.3]))
)


def samples(count: int, seed: int = 0) -> tuple[Tensor, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(3, (count,), generator=generator)
    features = torch.randn(count, WIDTH, generator=generator).relu() + 1
    features[torch.arange(count), places] += 2
    return features, [LABELS[place] for place in places.tolist()]


def filled(features: Tensor, label_ids: list[int]) -> Sums:
    sums = Sums(WIDTH, "a")
    sums.add(features, label_ids, backbone="a")
    return sums


def apart(found: Linear, sums: Sums, config: ClosedFormSettings) -> float:
    """How far a head is from the one solved anew from sums that are left as they are."""
    scatter = sums.copy().scatter()
    anew = discriminant(scatter, config)
    assert found.label_ids == scatter.label_ids
    pairs = ((found.weight, anew.weight), (found.bias, anew.bias))
    return max(float((one - other).abs().max()) for one, other in pairs)


@EACH
def test_labels_that_come_alone_give_the_head_solved_anew_with_another_factor_at_each_level_only(
    kind: str, balanced: bool, strength: float
) -> None:
    config = ClosedFormSettings(kind, strength, balanced)
    sums, kept = filled(*samples(COUNT)), KeptFactor()
    kept.linear(sums, config)
    features, label_ids = samples(24, seed=1)
    squares = [sums.settled]
    for row, label in zip(features, label_ids, strict=True):
        sums.add(row[None], [label], backbone="a")
        assert sums.waiting, "nothing was multiplied"
        assert apart(kept.linear(sums, config), sums, config) < 1e-8
        squares += [sums.settled] if sums.settled is not squares[-1] else []
    assert len(squares) <= 2, "four percent more samples pass one level at most"


def test_what_a_strength_is_relative_to_moves_by_steps_and_stays_near_the_mean_of_the_diagonal() -> None:
    features, label_ids = samples(COUNT)
    levels, means = [], []
    for at in range(300, COUNT, 2):
        scatter = filled(features[:at], label_ids[:at]).scatter()
        means.append(float(scatter.within.diagonal().mean()))
        levels.append(scatter.level(scatter.within))
    assert all(abs(math.log2(one / other)) <= 1 / 16 + 1e-12 for one, other in zip(levels, means, strict=True))
    assert len(set(levels)) == pytest.approx(8 * math.log2(means[-1] / means[0]), abs=1.01)


@EACH
def test_samples_that_go_or_change_their_label_and_classes_that_come_and_go_do_too(
    kind: str, balanced: bool, strength: float
) -> None:
    config = ClosedFormSettings(kind, strength, balanced)
    features, label_ids = samples(COUNT)
    features, label_ids = torch.cat([features, features[:2] + 1]), [*label_ids, 7, 7]
    sums, kept = filled(features, label_ids), KeptFactor()
    kept.linear(sums, config)
    settled = sums.settled

    def check() -> None:
        assert apart(kept.linear(sums, config), sums, config) < 1e-8

    sums.subtract(features[:1], label_ids[:1], backbone="a")
    check()
    sums.relabel(features[1:3], label_ids[1:3], [LABELS[0]] * 2, backbone="a")
    check()
    assert sums.settled is settled, "the square was not touched"
    sums.relabel(features[2:3], [LABELS[0]], [4], backbone="a")  # a new label
    check()
    sums.add(features[5:8] * 2, [4, 11, LABELS[1]], backbone="a")
    check()
    sums.subtract(features[-2:], [7, 7], backbone="a")  # 7 has no sample left
    check()
    sums.add(features[-1:], [7], backbone="a")
    check()
    sums.subtract(features[1:2], [LABELS[0]], backbone="a")
    sums.add(features[:1], label_ids[:1], backbone="a")
    check()


@EACH
def test_heads_of_two_orders_and_of_saved_sums_are_the_same(kind: str, balanced: bool, strength: float) -> None:
    config = ClosedFormSettings(kind, strength, balanced)
    features, label_ids = samples(COUNT)
    heads = []
    for order in (range(COUNT), range(COUNT - 1, -1, -1)):
        sums, kept = Sums(WIDTH, "a"), KeptFactor()
        sums.add(features[list(order)[:-30]], [label_ids[index] for index in list(order)[:-30]], backbone="a")
        for index in list(order)[-30:]:
            sums.add(features[index][None], [label_ids[index]], backbone="a")
            found = kept.linear(sums, config)
        again = KeptFactor().linear(Sums.from_tensors(sums.tensors()), config)
        assert float((again.weight - found.weight).abs().max()) < 1e-8
        rows = [found.label_ids.index(label) for label in LABELS]
        heads.append(torch.cat([found.weight[rows], found.bias[rows, None]], dim=1))
    assert float((heads[0] - heads[1]).abs().max()) < 1e-8


def test_a_copy_of_sums_stays_as_it_was_and_a_factor_serves_both() -> None:
    config = ClosedFormSettings("slda", 0.1)
    features, label_ids = samples(COUNT)
    sums, kept = filled(features, label_ids), KeptFactor()
    sums.add(features[:3], label_ids[:3], backbone="a")
    kept.linear(sums, config)
    of_before = sums.copy()
    sums.subtract(features[:100], label_ids[:100], backbone="a")
    sums.fade(0.5)
    assert apart(kept.linear(sums, config), sums, config) < 1e-8
    assert of_before.samples == COUNT + 3
    sums = of_before.copy()
    sums.add(features[3:4], label_ids[3:4], backbone="a")
    assert apart(kept.linear(of_before, config), of_before, config) < 1e-8
    assert apart(kept.linear(sums, config), sums, config) < 1e-8
    assert apart(kept.linear(of_before, config), filled(*doubled(features, label_ids, 3)), config) < 1e-8


def doubled(features: Tensor, label_ids: list[int], count: int) -> tuple[Tensor, list[int]]:
    return torch.cat([features, features[:count]]), [*label_ids, *label_ids[:count]]


def test_another_strength_or_kind_many_samples_and_few_features_are_solved_anew() -> None:
    features, label_ids = samples(COUNT)
    sums, kept = filled(features, label_ids), KeptFactor()
    for config in (ClosedFormSettings("slda", 0.1), ClosedFormSettings("slda", 0.2), ClosedFormSettings("ridge", 0.2)):
        sums.add(features[:2], label_ids[:2], backbone="a")
        assert apart(kept.linear(sums, config), sums, config) < 1e-8
    sums.add(features[:100], label_ids[:100], backbone="a")
    assert apart(kept.linear(sums, config), sums, config) < 1e-8
    assert kept.nbytes == 8 * WIDTH * (WIDTH + len(LABELS))
    narrow = Sums(4, "a")
    narrow.add(features[:, :4], label_ids, backbone="a")
    small = KeptFactor()
    small.linear(narrow, config)
    assert small.nbytes == 0


@pytest.mark.parametrize("kind", CLOSED_FORMS)
@pytest.mark.parametrize("width", [16, WIDTH])
def test_where_only_rounding_is_left_of_the_features_there_is_a_head_or_a_message_that_helps(
    kind: str, width: int
) -> None:
    config = ClosedFormSettings(kind, 0.1)
    for seed in range(40):
        features = torch.randn(40, width, generator=torch.Generator().manual_seed(seed))
        sums, kept = Sums(width, "a"), KeptFactor()
        sums.add(features, [1] * 40, backbone="a")
        sums.add(torch.zeros(1, width), [1], backbone="a")
        kept.linear(sums, config)
        sums.subtract(features, [1] * 40, backbone="a")
        try:
            assert kept.linear(sums, config).weight.isfinite().all()
        except LearningFailed as failure:
            assert "raise its strength" in str(failure)  # noqa: PT017


@pytest.mark.parametrize("kind", CLOSED_FORMS)
def test_rows_and_errors_are_those_of_a_whole_solve(kind: str) -> None:
    features, label_ids = samples(COUNT)
    sums, kept = filled(features, label_ids), KeptFactor()
    config = ClosedFormSettings(kind)
    asked = [99, *LABELS]
    kept.solve(sums, config, asked, strength=0.1)
    sums.add(features[:1], label_ids[:1], backbone="a")
    later, anew = kept.solve(sums, config, asked, strength=0.1), solve(sums.copy(), config, asked, strength=0.1)
    assert torch.allclose(later.weight, anew.weight, atol=1e-7)
    assert torch.allclose(later.bias, anew.bias, atol=1e-6)
    assert kept.solve(Sums(WIDTH, "a"), config, asked).bias.unique().numel() == 1
    with pytest.raises(LearningFailed, match="raise its strength"):
        kept.solve(sums, ClosedFormSettings(kind, -5.0), asked)
