"""A discriminant that takes steps of logistic regression: better where classes are no normal clouds, and order-free."""

import torch
from torch import Tensor
from torch.nn import functional

from worker.learning.closed_form import MASKED, Solved, discriminant, laid_out, solve
from worker.learning.refinement import START, KeptSteps, refined
from worker.learning.scatter import Discriminant, Linear
from worker.learning.sums import Sums

WIDTH, LABELS = 40, (5, 2, 9)


def samples(count: int, seed: int = 0) -> tuple[Tensor, list[int]]:
    """Classes that differ in a few skewed features, among many that say nothing."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(3, (count,), generator=generator)
    features = torch.randn(count, WIDTH, generator=generator)
    features[torch.arange(count), targets] += 1.5
    return features.exp(), [LABELS[place] for place in targets.tolist()]


def head(features: Tensor, label_ids: list[int], order: Tensor | None = None, steps: int = 2) -> Solved:
    """Teach in an order, one at a time; digests go by the sample, not by when it came."""
    sums = Sums(WIDTH, "a")
    order = torch.arange(len(label_ids)) if order is None else order
    for index in order.tolist():
        sums.add(features[index : index + 1], [label_ids[index]], backbone="a")
    rows = {f"{index:05d}": features[index] for index in order.tolist()}
    labels = {f"{index:05d}": label_ids[index] for index in order.tolist()}
    scatter = sums.scatter()
    found = refined(scatter, discriminant(scatter, START), rows, labels, steps=steps, scale=0.5)
    return laid_out(found, WIDTH, (*LABELS, 1), scale=1.0)


def loss(solved: Solved, features: Tensor, label_ids: list[int]) -> float:
    targets = torch.tensor([LABELS.index(label) for label in label_ids])
    return float(functional.cross_entropy(features @ solved.weight.T + solved.bias, targets))


def test_any_order_gives_one_head() -> None:
    features, label_ids = samples(200)
    shuffled = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    by_class = torch.tensor(sorted(range(200), key=lambda index: label_ids[index]))
    once, *others = (head(features, label_ids, order) for order in (None, shuffled, by_class))
    for other in others:
        torch.testing.assert_close(other.weight, once.weight, rtol=0, atol=1e-7)
        torch.testing.assert_close(other.bias, once.bias, rtol=0, atol=1e-6)


def test_no_steps_are_the_closed_form() -> None:
    features, label_ids = samples(200)
    sums = Sums(WIDTH, "a")
    sums.add(features, label_ids, backbone="a")
    plain, none = solve(sums, START, (*LABELS, 1), scale=0.5), head(features, label_ids, steps=0)
    torch.testing.assert_close(none.weight, plain.weight)
    torch.testing.assert_close(none.bias, plain.bias)


def test_steps_lower_the_loss_of_samples_never_seen() -> None:
    taught, unseen = samples(2000), samples(2000, seed=1)
    losses = [loss(head(*taught, steps=steps), *unseen) for steps in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[2] < losses[0] - 0.02


def test_a_label_without_samples_is_masked_and_one_alone_is_answered() -> None:
    features, label_ids = samples(50)
    solved = head(features, label_ids)
    assert solved.bias[3] == MASKED
    assert not solved.weight[3].any()
    alone = head(features, [5] * 50)
    assert bool((features @ alone.weight.T + alone.bias).argmax(1).eq(0).all())


def test_every_class_weighs_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat([torch.randn(400, WIDTH, generator=generator), torch.randn(40, WIDTH, generator=generator) + 0.4])
    solved = head(rows, [5] * 400 + [2] * 40)
    test = torch.randn(2000, WIDTH, generator=generator) + 0.4
    assert float(((test @ solved.weight.T + solved.bias).argmax(1) == 1).double().mean()) > 0.7


def test_steps_hold_until_samples_classes_or_their_scale_have_moved_too_far() -> None:
    zeros = torch.zeros(3, WIDTH, dtype=torch.float64)
    kept = KeptSteps(2, 0.5, {5: 80, 2: 70, 9: 10}, Linear(LABELS, zeros, zeros[:, 0]))
    assert kept.samples == 160
    assert kept.hold(kept.counts, steps=2, scale=0.5)
    assert kept.hold({5: 90, 2: 70, 9: 20}, steps=2, scale=0.5)
    for counts in ({5: 91, 2: 70, 9: 20}, {5: 80, 2: 70, 9: 21}, {5: 80, 2: 70, 9: 10, 1: 1}):
        assert not kept.hold(counts, steps=2, scale=0.5)
    assert not kept.hold(kept.counts, steps=1, scale=0.5)
    assert not kept.hold(kept.counts, steps=2, scale=0.6)


def test_what_steps_added_gives_back_the_head_that_they_led_to_and_answers_as_they_would_a_little_later() -> None:
    features, label_ids = samples(1000)
    unseen, _ = samples(2000, seed=1)

    def whole(count: int) -> tuple[Linear, Discriminant, Sums]:
        sums = Sums(WIDTH, "a")
        sums.add(features[:count], label_ids[:count], backbone="a")
        scatter = sums.scatter()
        start = discriminant(scatter, START)
        rows = {f"{index:05d}": features[index] for index in range(count)}
        labels = {f"{index:05d}": label_ids[index] for index in range(count)}
        return refined(scatter, start, rows, labels, steps=2, scale=0.5), start, sums

    def answers(found: Linear) -> Tensor:
        return (unseen.double() @ found.weight.T + found.bias).argmax(1)

    end, start, sums = whole(900)
    kept = KeptSteps.between(start, end, sums.counts, steps=2, scale=0.5)
    again = kept.added_to(Linear(end.label_ids, start.weight, start.bias))
    torch.testing.assert_close(again.weight, end.weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(again.bias, end.bias, rtol=0, atol=1e-12)
    later, its_start, its_sums = whole(1000)
    assert kept.hold(its_sums.counts, steps=2, scale=0.5)
    carried = kept.added_to(Linear(later.label_ids, its_start.weight, its_start.bias))
    plain = Linear(later.label_ids, its_start.weight, its_start.bias)
    share = [float((answers(one) == answers(later)).double().mean()) for one in (plain, carried)]
    assert share[1] > 0.98 > share[0]


def test_a_new_label_gets_the_row_of_the_start_alone() -> None:
    moved = Linear((5, 2), torch.ones(2, 3, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    kept = KeptSteps(2, 0.5, {5: 1, 2: 1}, moved)
    start = Linear((2, 9, 5), torch.full((3, 3), 4.0, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    found = kept.added_to(start)
    assert found.label_ids == (2, 9, 5)
    assert found.weight[:, 0].tolist() == [3.0, 2.0, 3.0]
    assert found.bias.tolist() == [1.0, 0.0, 1.0]
