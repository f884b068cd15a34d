"""The head that forgets, which of two heads serves, and how strength and confidence are chosen."""

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from worker.learning.better import Better
from worker.learning.calibration import expected_calibration_error, fit_scale
from worker.learning.closed_form import ClosedFormSettings, discriminant, solve
from worker.learning.fading import Fading
from worker.learning.failure import LearningFailed
from worker.learning.strength import Choice, choose
from worker.learning.sums import Sums

WIDTH = 8
SETTINGS = ClosedFormSettings("ridge", 0.1)


def rows(count: int, seed: int = 0) -> tuple[Tensor, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    features = torch.randn(count, WIDTH, generator=generator)
    features[torch.arange(count), labels] += 1.5
    return features, labels.tolist()


def head(sums: Sums) -> Tensor:
    scatter = sums.scatter()
    found = discriminant(scatter, SETTINGS)
    order = sorted(range(len(scatter.label_ids)), key=lambda row: scatter.label_ids[row])
    return torch.cat([found.weight[order], found.bias[order, None]], dim=1)


def test_samples_weigh_by_their_age_however_they_are_grouped() -> None:
    features, labels = rows(30)
    fading = Fading(WIDTH, "a", 0.95)
    for start, stop in ((0, 1), (1, 12), (12, 30)):
        assert fading.add(features[start:stop], labels[start:stop], backbone="a") == range(start, stop)
    direct = Sums(WIDTH, "a")
    direct.add(features, labels, backbone="a", weights=0.95 ** torch.arange(29, -1, -1, dtype=torch.float64))
    assert (head(fading.sums) - head(direct)).abs().max() < 1e-8
    assert fading.sums.counts == direct.counts


def test_an_old_sample_is_taken_out_and_relabelled_exactly_by_its_arrival() -> None:
    features, labels = rows(40)
    fading = Fading(WIDTH, "a", 0.95)
    fading.add(features, labels, backbone="a")
    wrong = [(label + 1) % 3 for label in labels[5:8]]
    fading.relabel(features[5:8], labels[5:8], wrong, [5, 6, 7], backbone="a")
    fading.subtract(features[20:21], labels[20:21], [20], backbone="a")
    weights = 0.95 ** torch.arange(39, -1, -1, dtype=torch.float64)
    kept = [index for index in range(40) if index != 20]
    direct = Sums(WIDTH, "a")
    changed = labels[:5] + wrong + labels[8:]
    direct.add(features[kept], [changed[index] for index in kept], backbone="a", weights=weights[kept])
    assert (head(fading.sums) - head(direct)).abs().max() < 1e-8
    with pytest.raises(LearningFailed, match="outside 0 to 39"):
        fading.subtract(features[:1], labels[:1], [40], backbone="a")


def test_a_head_that_forgets_is_saved_and_goes_on_the_same() -> None:
    features, labels = rows(40)
    fading = Fading(WIDTH, "a", 0.9)
    fading.add(features[:30], labels[:30], backbone="a")
    resumed = Fading.from_tensors(load(save(fading.tensors())))
    for one in (fading, resumed):
        one.add(features[30:], labels[30:], backbone="a")
    assert resumed.arrived == 40
    assert torch.equal(head(fading.sums), head(resumed.sums))


def test_a_refused_sample_ages_nothing() -> None:
    features, labels = rows(10)
    fading = Fading(WIDTH, "a", 0.9)
    fading.add(features, labels, backbone="a")
    before = head(fading.sums)
    with pytest.raises(LearningFailed, match="not finite"):
        fading.add(features * float("nan"), labels, backbone="a")
    assert torch.equal(head(fading.sums), before)
    with pytest.raises(LearningFailed, match="less than 1"):
        Fading(WIDTH, "a", 1.0)


def test_a_class_unseen_for_long_keeps_its_place_until_its_weight_is_nothing() -> None:
    features, labels = rows(50)
    fading = Fading(WIDTH, "a", 0.91)
    fading.add(torch.full((5, WIDTH), -6.0), [7] * 5, backbone="a")
    for _ in range(4):
        fading.add(features, labels, backbone="a")
    solved = solve(fading.sums, SETTINGS, [0, 1, 2, 7])
    assert int((torch.full((1, WIDTH), -6.0) @ solved.weight.T + solved.bias).argmax()) == 3
    for _ in range(20):
        fading.add(features, labels, backbone="a")
    assert solve(fading.sums, SETTINGS, [0, 1, 2, 7]).weight.isfinite().all()


def test_the_head_that_forgets_serves_after_a_change_and_the_other_when_nothing_changes() -> None:
    right, wrong = torch.ones(50, dtype=torch.bool), torch.zeros(50, dtype=torch.bool)
    better = Better().after(right, right)
    assert better.serving == "steady"
    drifted = better.after(wrong, right)
    assert drifted.serving == "fading"
    assert drifted.accuracies is not None
    assert drifted.accuracies[0] < drifted.accuracies[1]
    assert Better.from_json(drifted.to_json()) == drifted
    assert drifted.after(right, wrong).after(right, wrong).serving == "steady"
    assert Better().accuracies is None


def test_counting_answers_one_by_one_or_together_is_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    steady, fading = (torch.rand(60, generator=generator) < 0.7 for _ in range(2))
    together, single = Better().after(steady, fading), Better()
    for index in range(60):
        single = single.after(steady[index : index + 1], fading[index : index + 1])
    assert single == together


@pytest.mark.parametrize("kind", ["ridge", "slda"])
def test_noise_and_few_samples_call_for_more_strength_than_clean_ones(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(1200) % 3
    features = torch.randn(1200, 60, generator=generator)
    features[torch.arange(1200), labels] += 2.5
    noisy = torch.where(
        torch.rand(1200, generator=generator) < 0.5, torch.randint(3, (1200,), generator=generator), labels
    )
    chosen: list[Choice] = []
    scales = []
    for count, given in ((1200, labels), (90, noisy)):
        sums, taught = Sums(60, "a"), (features[:count], given[:count].tolist())
        sums.add(*taught, backbone="a")
        chosen.append(choose(sums, ClosedFormSettings(kind), *taught))
        scales.append(choose(sums, ClosedFormSettings(kind, 0.3), *taught).scale)
    assert chosen[0].strength < chosen[1].strength
    assert scales[0] > scales[1], "held alike, it may be less sure of itself"
    assert Choice.from_json(chosen[0].to_json()) == chosen[0]


def test_a_given_strength_stays_and_too_few_samples_leave_the_default() -> None:
    features, labels = rows(40)
    sums = Sums(WIDTH, "a")
    sums.add(features[:6], labels[:6], backbone="a")
    first = choose(sums, ClosedFormSettings(), features[:6], labels[:6])
    assert first.rows == 0
    assert first.loss is None
    sums.add(features[6:], labels[6:], backbone="a")
    assert first.due(sums)
    fixed = choose(sums, ClosedFormSettings("slda", 0.42), features, labels)
    assert fixed.strength == 0.42
    assert fixed.rows == 40
    assert not fixed.due(sums)


@pytest.mark.parametrize("kind", ["ridge", "slda"])
def test_confidence_is_honest_on_samples_never_seen(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(4, (count,), generator=generator)
        features = torch.randn(count, 100, generator=generator)
        features[torch.arange(count), labels] += 1.5
        return features, labels

    features, labels = drawn(400)
    test, wanted = drawn(4000)
    sums = Sums(100, "a")
    sums.add(features, labels.tolist(), backbone="a")
    settings = ClosedFormSettings(kind)
    choice = choose(sums, settings, features, labels.tolist())
    found = solve(sums, settings, range(4), strength=choice.strength, scale=choice.scale)
    naive = solve(sums, settings, range(4), strength=0.01, scale=1.0)
    errors = [expected_calibration_error((test @ one.weight.T + one.bias).softmax(1), wanted) for one in (found, naive)]
    assert errors[0] < 0.06 < errors[1]


def test_the_fitted_scale_is_the_best_one_and_a_few_right_answers_are_no_certainty() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 3, generator=generator, dtype=torch.float64) * 4
    targets = torch.multinomial((logits * 0.3).softmax(1), 1, generator=generator)[:, 0]
    scale, loss = fit_scale(logits, targets, 0.5)
    assert 0.2 < scale < 0.4
    for other in (0.8, 1.25):
        assert loss <= float(torch.nn.functional.cross_entropy(logits * scale * other, targets)) + 1e-6
    assert fit_scale(torch.eye(3, dtype=torch.float64) * 10, torch.arange(3), 0.5)[0] < 2


def test_calibration_error_by_hand() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.35, 0.65]])
    targets = torch.tensor([0, 1, 1, 1])
    assert expected_calibration_error(probabilities, targets, bins=2) == pytest.approx(abs(3 - 3.05) / 4, abs=1e-6)
    assert expected_calibration_error(probabilities, targets, bins=4) == pytest.approx((0.75 + 0.8) / 4, abs=1e-6)


@pytest.mark.parametrize("kind", ["ridge", "slda"])
def test_a_choice_over_many_labels_takes_fewer_rows_and_one_over_a_flat_space_still_solves(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(3000) % 1500).tolist()
    sums = Sums(4, "a")
    features = torch.randn(3000, 4, generator=generator)
    sums.add(features, labels, backbone="a")
    assert choose(sums, ClosedFormSettings(kind), features, labels).rows == 2_000_000 // 1500
    flat = Sums(4, "a")
    same = torch.full((40, 4), 1e4)
    flat.add(same, [0, 1] * 20, backbone="a")
    choice = choose(flat, ClosedFormSettings(kind), same, [0, 1] * 20)
    head = solve(flat, ClosedFormSettings(kind), [0, 1], strength=choice.strength, scale=choice.scale)
    assert head.weight.isfinite().all()
