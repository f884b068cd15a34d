"""The memory that the benchmarks of learning fill from a stream."""

import pytest
import torch

from benchmarks.learning.buffer import Buffer


def filled(capacity: int, targets: list[int], *, balanced: bool, seed: int = 0, batch: int = 10) -> Buffer:
    """A buffer after a stream whose sample number n holds the number n."""
    buffer = Buffer(capacity, torch.Generator().manual_seed(seed), balanced=balanced)
    rows = torch.arange(len(targets))
    for part in rows.split(batch):
        wanted = torch.tensor(targets)[part]
        buffer.add(part[:, None], wanted, torch.nn.functional.one_hot(wanted, 10).float())
    return buffer


@pytest.mark.parametrize("balanced", [True, False])
def test_it_never_holds_more_than_its_capacity_and_no_sample_twice(balanced: bool) -> None:
    buffer = filled(30, [n % 7 for n in range(500)], balanced=balanced)
    held = buffer.draw(1000).inputs.flatten().tolist()
    assert len(buffer) == len(held) == len(set(held)) == 30


@pytest.mark.parametrize("balanced", [True, False])
def test_inputs_targets_and_logits_of_a_sample_stay_together(balanced: bool) -> None:
    targets = [n * n % 10 for n in range(400)]
    held = filled(25, targets, balanced=balanced).draw(25)
    assert held.targets.tolist() == [targets[n] for n in held.inputs.flatten().tolist()]
    assert held.logits is not None
    assert held.logits.argmax(1).equal(held.targets)


@pytest.mark.parametrize("balanced", [True, False])
def test_its_counts_are_those_of_what_it_holds(balanced: bool) -> None:
    buffer = filled(40, sorted(n % 10 for n in range(600)), balanced=balanced)
    assert buffer.counts() == buffer.draw(40).targets.bincount(minlength=10).tolist()


def test_classes_one_after_the_other_share_a_balanced_one_evenly() -> None:
    buffer = filled(40, sorted(n % 10 for n in range(600)), balanced=True)
    assert buffer.counts() == [4] * 10


def test_a_rare_class_keeps_all_it_has_in_a_balanced_one() -> None:
    buffer = filled(20, [0] * 300 + [1] * 3 + [0] * 300, balanced=True)
    assert buffer.counts()[:2] == [17, 3]


def test_every_sample_of_the_stream_has_the_same_chance_in_a_reservoir() -> None:
    stays = torch.zeros(60)
    for seed in range(400):
        stays[filled(15, [0] * 60, balanced=False, seed=seed).draw(15).inputs.flatten()] += 1
    assert float(stays[:20].mean()) == pytest.approx(100, abs=10)
    assert float(stays[-20:].mean()) == pytest.approx(100, abs=10)


def test_a_draw_holds_different_samples_and_no_more_than_there_are() -> None:
    buffer = filled(50, [0] * 12, balanced=False)
    drawn = buffer.draw(10).inputs.flatten().tolist()
    assert len(set(drawn)) == 10
    assert len(buffer.draw(50).targets) == 12
