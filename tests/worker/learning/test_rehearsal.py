"""Class-balanced rehearsal."""

from collections import Counter

import torch

from worker.learning.rehearsal import Rehearsal


def test_every_class_has_its_share_and_every_sample_its_turn() -> None:
    targets = torch.tensor([0] * 90 + [1] * 9 + [2])
    rehearsal = Rehearsal(range(100), targets, torch.Generator().manual_seed(0))
    drawn = [index for _ in range(9) for index in rehearsal.draw(30)]
    assert Counter(int(targets[index]) for index in drawn) == {0: 90, 1: 90, 2: 90}
    counts = Counter(drawn)
    assert all(counts[index] == 1 for index in range(90))
    assert all(counts[index] == 10 for index in range(90, 99))


def test_an_empty_memory_gives_nothing() -> None:
    rehearsal = Rehearsal([], torch.tensor([]), torch.Generator())
    assert rehearsal.draw(5) == []
    assert len(rehearsal) == 0
