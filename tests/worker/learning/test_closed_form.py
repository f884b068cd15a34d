"""The closed forms against what one would compute from all samples at once, and against leaving samples out by hand."""

import pytest
import torch
from torch import Tensor

from worker.learning.closed_form import MASKED, ClosedFormSettings, closed_form, discriminant, solve
from worker.learning.failure import LearningFailed
from worker.learning.scatter import Discriminant
from worker.learning.sums import Sums

WIDTH, LABELS = 6, (7, 3, 11)


def taught(count: int = 60, seed: int = 0, uneven: bool = False) -> tuple[Tensor, Tensor]:
    """Blobs far from the origin: (count, width) features and the place of each label, (count,)."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % 3
    if uneven:
        targets[(targets == 2) & (torch.arange(count) % 12 != 2)] = 0
    features = torch.randn(count, WIDTH, generator=generator, dtype=torch.float64) + 4
    features[torch.arange(count), targets] += 2
    return features, targets


def sums_of(features: Tensor, targets: Tensor) -> Sums:
    sums = Sums(features.shape[1], "a")
    sums.add(features, ids(targets), backbone="a")
    return sums


def ids(targets: Tensor) -> list[int]:
    return [LABELS[target] for target in targets.tolist()]


def level(square: Tensor) -> float:
    """What a strength is relative to: the eighth of an octave nearest to the mean of a square's diagonal."""
    steps = 2.0 ** (torch.arange(-400, 400, dtype=torch.float64) / 8)
    return float(steps[(steps.log() - square.diagonal().mean().log()).abs().argmin()])


def scores(found: Discriminant, rows: Tensor) -> Tensor:
    return rows @ found.weight.T + found.bias


@pytest.mark.parametrize("strength", [1e-4, 0.1, 3.0])
def test_ridge_equals_least_squares_over_all_samples_with_a_free_bias(strength: float) -> None:
    features, targets = taught(uneven=True)
    scatter = sums_of(features, targets).scatter()
    found = discriminant(scatter, ClosedFormSettings("ridge", strength, balanced=False))
    centred = features - features.mean(0)
    penalty = strength * level(centred.T @ centred)
    onehot = torch.nn.functional.one_hot(targets, 3).double()
    rows = torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], dim=1)
    held = penalty**0.5 * torch.eye(WIDTH + 1, dtype=torch.float64)[:WIDTH]
    system = torch.cat([rows, held])
    wanted = torch.linalg.lstsq(system, torch.cat([onehot, torch.zeros(WIDTH, 3, dtype=torch.float64)])).solution
    assert scatter.label_ids == LABELS
    assert (found.weight / found.scale - wanted[:WIDTH].T).abs().max() < 1e-10
    assert (found.bias / found.scale - wanted[WIDTH]).abs().max() < 1e-9


def test_balanced_ridge_is_class_weighted_least_squares_where_all_classes_are_spread_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    blob = torch.randn(20, WIDTH, generator=generator, dtype=torch.float64)
    blob -= blob.mean(0)
    means = torch.randn(3, WIDTH, generator=generator, dtype=torch.float64)
    repeats = (1, 2, 5)
    features = torch.cat([(blob + mean).repeat(times, 1) for mean, times in zip(means, repeats, strict=True)])
    targets = torch.cat([torch.full((20 * times,), place) for place, times in enumerate(repeats)])
    found = discriminant(sums_of(features, targets).scatter(), ClosedFormSettings("ridge", 0.1))
    weights = (len(targets) / 3 / targets.bincount().double())[targets]
    mean = means.mean(0)
    centred = features - mean
    square = (centred * weights[:, None]).T @ centred
    square += 0.1 * level(square) * torch.eye(WIDTH, dtype=torch.float64)
    onehot = torch.nn.functional.one_hot(targets, 3).double()
    wanted = torch.linalg.solve(square, (centred * weights[:, None]).T @ (onehot - 1 / 3)).T
    assert (found.weight / found.scale - wanted).abs().max() < 1e-10


def test_slda_is_the_streaming_covariance_with_its_corrected_update() -> None:
    features, targets = taught(uneven=True)
    means, counts = torch.zeros(3, WIDTH, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    scatter = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    for z, place in zip(features, targets.tolist(), strict=True):
        d = z - means[place]
        scatter += counts[place] / (counts[place] + 1) * torch.outer(d, d)
        means[place] += d / (counts[place] + 1)
        counts[place] += 1
    covariance = scatter / len(features)
    shrunk = level(scatter) / len(features) * torch.eye(WIDTH, dtype=torch.float64)
    precision = torch.linalg.inv(0.9 * covariance + 0.1 * shrunk)
    found = discriminant(sums_of(features, targets).scatter(), ClosedFormSettings("slda", 0.1))
    rows = taught(seed=5)[0]
    wanted = rows @ precision @ means.T - ((means @ precision) * means).sum(1) / 2
    got = scores(found, rows)
    assert ((got - got[:, :1]) - (wanted - wanted[:, :1])).abs().max() < 1e-9  # what all labels share is left out


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize(("kind", "balanced"), [("ridge", False), ("slda", True)])
def test_a_left_out_score_is_that_of_a_head_solved_without_the_sample(kind: str, balanced: bool, uneven: bool) -> None:
    # Fixed λ and n are what left-out scores assume; with many samples and no strength they hardly move.
    features, targets = taught(600, uneven=uneven)
    settings = ClosedFormSettings(kind, 1e-9, balanced)
    scatter = sums_of(features, targets).scatter()
    found = discriminant(scatter, settings)
    chosen = [0, 1, 2, 40, 41]
    got = closed_form(settings).left_out(scatter, found, features[chosen], targets[chosen], 1e-9, balanced)
    scale = {"ridge": found.scale, "slda": 600 / 599}[kind]
    for row, index in enumerate(chosen):
        sums = sums_of(features, targets)
        sums.subtract(features[[index]], ids(targets[[index]]), backbone="a")
        without = discriminant(sums.scatter(), settings)
        wanted = scores(without, features[[index]])[0] / without.scale
        left, right = got[row] / scale, wanted
        learned = scores(found, features[[index]])[0] / found.scale
        off = ((left - left.mean()) - (right - right.mean())).abs().max()
        moved = ((learned - learned.mean()) - (right - right.mean())).abs().max()
        assert off < 0.15 * moved


def test_a_left_out_score_of_balanced_ridge_is_exact_for_fixed_penalty_and_mass_among_few_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(24, 40, generator=generator, dtype=torch.float64)
    targets = torch.arange(24) % 3
    sums = Sums(40, "a")
    sums.add(features, ids(targets), backbone="a")
    scatter = sums.scatter()
    settings = ClosedFormSettings("ridge", 0.3)
    found = discriminant(scatter, settings)
    got = closed_form(settings).left_out(scatter, found, features, targets, 0.3, True) / found.scale
    square = (features - features.mean(0)).T @ (features - features.mean(0))
    penalty = 0.3 * level(square) * torch.eye(40, dtype=torch.float64)
    for index in range(24):
        kept = [other for other in range(24) if other != index]
        rows, places = features[kept], targets[kept]
        means = torch.stack([rows[places == place].mean(0) for place in range(3)])
        inside = rows - means[places]
        apart = means - means.mean(0)
        weight = torch.linalg.solve(inside.T @ inside + 8 * apart.T @ apart + penalty, 8 * apart.T)
        wanted = (features[index] - means.mean(0)) @ weight + 1 / 3
        assert (got[index] - wanted).abs().max() < 1e-10


@pytest.mark.parametrize("kind", ["ridge", "slda"])
def test_a_label_without_samples_is_masked_and_the_others_stand_in_the_order_asked_for(kind: str) -> None:
    features, targets = taught()
    sums = sums_of(features, targets)
    head = solve(sums, ClosedFormSettings(kind), [99, 11, 3, 7])
    plain = solve(sums, ClosedFormSettings(kind), LABELS)
    assert head.weight.dtype == head.bias.dtype == torch.float32
    assert head.bias[0] == MASKED
    assert not head.weight[0].any()
    assert torch.equal(head.weight[1:], plain.weight[[2, 1, 0]])
    assert torch.equal(head.bias[1:], plain.bias[[2, 1, 0]])
    assert solve(Sums(WIDTH, "a"), ClosedFormSettings(kind), LABELS).bias.tolist() == [MASKED] * 3


@pytest.mark.parametrize("kind", ["ridge", "slda"])
@pytest.mark.parametrize("balanced", [True, False])
def test_the_first_samples_already_make_a_head(kind: str, balanced: bool) -> None:
    sums = Sums(2, "a")
    settings = ClosedFormSettings(kind, balanced=balanced)
    sums.add(torch.zeros(1, 2), [0], backbone="a")
    assert solve(sums, settings, [0, 1]).weight.isfinite().all()
    sums.add(torch.tensor([[0.0, 4.0]]), [1], backbone="a")
    head = solve(sums, settings, [0, 1])
    logits = torch.tensor([[0.0, 1.0], [0.0, 3.0]]) @ head.weight.T + head.bias
    assert logits.argmax(1).tolist() == [0, 1]


def test_an_unknown_kind_and_a_matrix_without_a_factor_are_named() -> None:
    with pytest.raises(LearningFailed, match="choose one of ridge, slda"):
        closed_form(ClosedFormSettings("lda"))
    features, targets = taught()
    with pytest.raises(LearningFailed, match="raise its strength"):
        discriminant(sums_of(features, targets).scatter(), ClosedFormSettings("ridge", -5.0))
