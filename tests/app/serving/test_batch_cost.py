"""The fitted cost of a batch, against lines that are known."""

import pytest

from app.serving.batch_cost import KNOWN, SELDOM, BatchCost


def test_nothing_seen_costs_nothing() -> None:
    assert BatchCost().line() == (0.0, 0.0)


def test_one_size_alone_is_taken_as_proportional() -> None:
    cost = BatchCost()
    for _ in range(5):
        cost.note(4, 0.02)

    assert cost.line() == (0.0, pytest.approx(0.005))
    assert cost.seconds(8) == pytest.approx(0.04)


def test_batches_on_a_line_give_that_line() -> None:
    cost = BatchCost()
    for items in (1, 8, 32, 64, 2, 16) * 10:
        cost.note(items, 0.003 + 0.0015 * items)

    fixed, each = cost.line()
    assert (fixed, each) == (pytest.approx(0.003), pytest.approx(0.0015))


def test_what_is_new_outweighs_what_is_old() -> None:
    cost = BatchCost()
    for items in (1, 8, 32) * 100:
        cost.note(items, 0.001 * items)
    for items in (1, 8, 32) * 100:
        cost.note(items, 0.004 * items)

    assert cost.seconds(10) == pytest.approx(0.04, rel=0.02)


def test_neither_part_is_ever_negative() -> None:
    cost = BatchCost()
    for items, seconds in ((1, 0.05), (32, 0.01), (64, 0.001), (2, 0.04)):
        cost.note(items, seconds)

    fixed, each = cost.line()
    assert fixed >= 0
    assert each >= 0


def test_once_the_cost_is_known_it_is_measured_seldom() -> None:
    cost = BatchCost()
    for _ in range(KNOWN):
        assert cost.is_due()
        cost.note(1, 1e-4)
    assert sum(cost.is_due() for _ in range(10 * SELDOM)) == 10
