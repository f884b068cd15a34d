"""What every closed form of the catalog must satisfy, however samples came to be in its sums."""

import itertools

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from app.networks.power import Power
from worker.learning.closed_form import CLOSED_FORMS, ClosedFormSettings, Solved, discriminant, solve
from worker.learning.failure import LearningFailed
from worker.learning.strength import choose
from worker.learning.sums import Sums

WIDTH, COUNT, LABELS = 12, 90, (5, 2, 9)

EACH = pytest.mark.parametrize(("kind", "balanced"), list(itertools.product(CLOSED_FORMS, [True, False])))


def settings(kind: str, balanced: bool) -> ClosedFormSettings:
    return ClosedFormSettings(kind, balanced=balanced)


def samples(count: int = COUNT, seed: int = 0) -> tuple[Tensor, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(3, (count,), generator=generator)
    features = torch.randn(count, WIDTH, generator=generator) + 3
    features[torch.arange(count), places] += 3
    return features, [LABELS[place] for place in places.tolist()]


def filled(features: Tensor, label_ids: list[int], step: int = COUNT) -> Sums:
    sums = Sums(WIDTH, "a")
    for start in range(0, len(label_ids), step):
        sums.add(features[start : start + step], label_ids[start : start + step], backbone="a")
    return sums


def difference(one: Sums, other: Sums, config: ClosedFormSettings) -> float:
    """How far two heads are apart, in float64."""
    heads = []
    for sums in (one, other):
        scatter = sums.scatter()
        found = discriminant(scatter, config)
        order = sorted(range(len(scatter.label_ids)), key=lambda row: scatter.label_ids[row])
        heads.append(torch.cat([found.weight[order], found.bias[order, None]], dim=1))
    return float((heads[0] - heads[1]).abs().max())


def same(one: Solved, other: Solved) -> bool:
    return torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


@EACH
def test_one_by_one_in_any_order_equals_all_at_once(kind: str, balanced: bool) -> None:
    features, label_ids = samples()
    by_class = sorted(range(COUNT), key=lambda index: label_ids[index])
    ordered = filled(features[by_class], [label_ids[index] for index in by_class], step=1)
    assert difference(ordered, filled(features, label_ids), settings(kind, balanced)) < 1e-8


@EACH
def test_a_sample_taken_out_or_given_another_label_leaves_nothing_behind(kind: str, balanced: bool) -> None:
    features, label_ids = samples()
    config = settings(kind, balanced)
    sums = filled(features, label_ids)
    extra, extra_ids = samples(20, seed=1)
    sums.add(extra * 50, extra_ids, backbone="a")
    sums.subtract(extra * 50, extra_ids, backbone="a")
    assert difference(sums, filled(features, label_ids), config) < 1e-8
    wrong = [LABELS[(LABELS.index(label) + 1) % 3] for label in label_ids[:10]]
    sums.relabel(features[:10], label_ids[:10], wrong, backbone="a")
    assert difference(sums, filled(features, wrong + label_ids[10:]), config) < 1e-8
    sums.relabel(features[:10], wrong, label_ids[:10], backbone="a")
    assert difference(sums, filled(features, label_ids), config) < 1e-8


@EACH
def test_saved_and_resumed_sums_solve_to_the_same_bits_and_take_the_same_next_step(kind: str, balanced: bool) -> None:
    features, label_ids = samples()
    sums = filled(features, label_ids, step=7)
    resumed = Sums.from_tensors(load(save(sums.tensors())))
    config = settings(kind, balanced)
    assert same(solve(sums, config, LABELS), solve(resumed, config, LABELS))
    assert resumed.counts == sums.counts
    more, more_ids = samples(5, seed=2)
    for one in (sums, resumed):
        one.add(more, more_ids, backbone="a")
    assert same(solve(sums, config, LABELS), solve(resumed, config, LABELS))


@EACH
def test_what_is_given_stays_unchanged_and_the_same_arguments_give_the_same_choice(kind: str, balanced: bool) -> None:
    features, label_ids = samples()
    before = features.clone()
    sums = filled(features, label_ids)
    state = sums.tensors()
    config = settings(kind, balanced)
    random = torch.get_rng_state()
    choices = [choose(sums, config, features, label_ids) for _ in range(2)]
    assert choices[0] == choices[1]
    assert choices[0].accuracy is not None
    assert choices[0].accuracy > 0.8
    assert torch.equal(features, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in sums.tensors().items())


@EACH
def test_the_scale_moves_no_answer(kind: str, balanced: bool) -> None:
    features, label_ids = samples()
    sums = filled(features, label_ids)
    answers = []
    for scale in (0.01, 1.0, 30.0):
        head = solve(sums, settings(kind, balanced), LABELS, scale=scale)
        answers.append((features @ head.weight.T + head.bias).argmax(1))
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[1], answers[2])


@EACH
def test_a_new_label_is_a_new_row_and_its_going_restores_the_others(kind: str, balanced: bool) -> None:
    features, label_ids = samples()
    config = settings(kind, balanced)
    sums = filled(features, label_ids)
    new = features[:6] - 8
    sums.add(new, [1] * 6, backbone="a")
    head = solve(sums, config, [*LABELS, 1])
    assert ((new @ head.weight.T + head.bias).argmax(1) == 3).all()
    sums.subtract(new, [1] * 6, backbone="a")
    assert 1 not in sums.counts
    assert difference(sums, filled(features, label_ids), config) < 1e-8
    masked = solve(sums, config, [*LABELS, 1])
    assert ((new @ masked.weight.T + masked.bias).argmax(1) != 3).all()


@EACH
def test_through_a_power_order_does_not_count_and_what_goes_leaves_nothing_behind(kind: str, balanced: bool) -> None:
    features, label_ids = samples()
    raised = Power(0.5)(features)
    config = settings(kind, balanced)
    by_class = sorted(range(COUNT), key=lambda index: label_ids[index])
    ordered = filled(raised[by_class], [label_ids[index] for index in by_class], step=1)
    assert difference(ordered, filled(raised, label_ids), config) < 1e-8
    alone = torch.cat([Power(0.5)(row[None]) for row in features])
    ordered.add(alone[:20], label_ids[:20], backbone="a")
    ordered.subtract(alone[:20], label_ids[:20], backbone="a")
    assert difference(ordered, filled(raised, label_ids), config) < 1e-8


@EACH
def test_skewed_features_are_told_apart_better_through_a_power(kind: str, balanced: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(2000) % 3
    features = torch.randn(2000, WIDTH, generator=generator)
    features[torch.arange(2000), targets] += 1.5
    features = (features * 1.5).exp()  # log-normal
    label_ids = [LABELS[place] for place in targets.tolist()]
    right = []
    for rows in (features, Power(0.2)(features)):
        head = solve(filled(rows[:1000], label_ids[:1000]), settings(kind, balanced), LABELS)
        right.append(float(((rows[1000:] @ head.weight.T + head.bias).argmax(1) == targets[1000:]).double().mean()))
    assert right[1] > right[0] + 0.1


@EACH
def test_a_label_ten_times_as_frequent_wins_no_answer_by_that_where_classes_are_balanced(
    kind: str, balanced: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    counts = (400, 40)
    rows = torch.cat(
        [torch.randn(n, WIDTH, generator=generator) + shift for n, shift in zip(counts, (0.0, 0.5), strict=True)]
    )
    sums = filled(rows, [5] * 400 + [2] * 40)
    head = solve(sums, settings(kind, balanced), (5, 2))
    test = torch.randn(2000, WIDTH, generator=generator) + 0.5
    recall = float(((test @ head.weight.T + head.bias).argmax(1) == 1).double().mean())
    assert recall > 0.7 if balanced or kind == "slda" else recall < 0.5


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused_by_its_place_and_changes_nothing(number: float) -> None:
    features, label_ids = samples()
    sums = filled(features, label_ids)
    state = sums.tensors()
    features[3, 1] = number
    with pytest.raises(LearningFailed, match=rf"sample 3 of {COUNT} \(label id {label_ids[3]}\)"):
        sums.add(features, label_ids, backbone="a")
    with pytest.raises(LearningFailed, match="not finite"):
        sums.relabel(features, label_ids, label_ids, backbone="a")
    assert all(torch.equal(value, state[name]) for name, value in sums.tensors().items())


def test_two_backbones_never_meet_in_one_sum() -> None:
    features, label_ids = samples()
    sums = filled(features, label_ids)
    for change in (sums.add, sums.subtract):
        with pytest.raises(LearningFailed, match=r"backbone 'b'.*'a'.*rebuild"):
            change(features, label_ids, backbone="b")
    assert sums.samples == COUNT


def test_features_of_another_width_and_more_than_is_in_are_refused() -> None:
    features, label_ids = samples()
    sums = filled(features, label_ids)
    with pytest.raises(LearningFailed, match="expected"):
        sums.add(features[:, :-1], label_ids, backbone="a")
    with pytest.raises(LearningFailed, match="1 samples of label id 77 are to be taken out and 0 are in"):
        sums.subtract(features[:1], [77], backbone="a")
    with pytest.raises(LearningFailed, match="no sample"):
        Sums(WIDTH, "a").scatter()
