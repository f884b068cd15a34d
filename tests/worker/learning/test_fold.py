"""The early-stopping fold."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.learning.fold import MOST, early_stopping_fold


def keys(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.lists(st.integers(0, 5), max_size=200), st.floats(0, 0.49))
def test_it_has_the_asked_share_of_each_class_within_one_and_leaves_each_class_a_sample(
    classes: list[int], share: float
) -> None:
    targets = torch.tensor(classes, dtype=torch.int64)
    fold = early_stopping_fold(targets, keys(len(classes)), share)
    assert fold == sorted(set(fold))
    assert len(fold) <= round(share * len(classes))
    for target in set(classes):
        members = [i for i in range(len(classes)) if classes[i] == target]
        chosen = len(set(members) & set(fold))
        assert chosen < len(members)
        assert abs(chosen - share * len(members)) < 1 or chosen == len(members) - 1


def test_a_sample_of_the_fold_stays_in_it_while_its_class_grows() -> None:
    order = keys(400)
    early = set(early_stopping_fold(torch.zeros(200, dtype=torch.int64), order[:200], 0.15))
    late = set(early_stopping_fold(torch.zeros(400, dtype=torch.int64), order, 0.15))
    assert len(early & late) >= 0.8 * len(early)


def test_few_samples_of_many_classes_still_make_a_fold() -> None:
    assert len(early_stopping_fold(torch.arange(32) % 10, keys(32), 0.15)) == 5
    assert early_stopping_fold(torch.arange(10), keys(10), 0.15) == []


def test_of_many_samples_a_fold_takes_no_more_than_it_needs_in_proportion() -> None:
    targets = torch.arange(4000).clamp(max=3000) % 10  # a quarter and more of class 0
    fold = early_stopping_fold(targets, keys(4000), 0.15)
    assert len(fold) == MOST
    counts = targets[fold].bincount(minlength=10)
    assert all(abs(int(counts[row]) - MOST * int((targets == row).sum()) / 4000) < 1 for row in range(10))
