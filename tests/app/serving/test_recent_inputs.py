"""What is remembered of a batch is its size and one item, and nothing that came with it."""

import torch

from app.serving.recent_inputs import EVERY_SECONDS, ITEMS, RecentInputs


def test_an_item_does_not_keep_the_block_that_it_came_in() -> None:
    recent = RecentInputs()
    block = torch.arange(4096.0).reshape(1024, 4)

    recent.note(list(block))

    (kept,) = recent.items()
    assert torch.equal(kept, block[-1])
    assert kept.untyped_storage().nbytes() == kept.numel() * kept.element_size()


def test_only_the_last_items_are_kept() -> None:
    clock = iter(range(100))
    recent = RecentInputs(lambda: next(clock))
    for number in range(ITEMS + 3):
        recent.note([torch.tensor([float(number)])])

    assert [item.item() for item in recent.items()] == list(range(3, ITEMS + 3))
    assert recent.sizes(2) == [1]


def test_items_are_copied_a_few_times_a_second_and_sizes_always_counted() -> None:
    now = 0.0
    recent = RecentInputs(lambda: now)
    for number in range(ITEMS + 3):
        recent.note([torch.tensor([float(number)])] * (1 + number // ITEMS))
    assert [item.item() for item in recent.items()] == list(range(ITEMS))
    assert recent.sizes(2) == [1, 2]

    now = EVERY_SECONDS
    recent.note([torch.tensor([99.0])])

    assert [item.item() for item in recent.items()] == [*range(1, ITEMS), 99]
