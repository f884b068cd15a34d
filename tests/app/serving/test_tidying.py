"""Garbage is looked for while nobody waits."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from app.serving.tidying import LATE_SECONDS, OFTEN_SECONDS, Tidying


class Desk:
    """What the tidying sees: a clock and whether somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.busy = False
        self.tidying = Tidying(lambda: self.busy, lambda: self.now)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    desk.tidying.start()
    yield desk
    desk.tidying.stop()


def cycle() -> weakref.ref[Desk]:
    one = Desk()
    one.itself = one  # type: ignore[attr-defined]
    return weakref.ref(one)


def test_a_look_comes_when_it_is_time_and_nobody_waits(desk: Desk) -> None:
    gone = cycle()

    assert not desk.tidying.look()
    desk.now += OFTEN_SECONDS
    desk.busy = True
    assert not desk.tidying.look()
    desk.busy = False
    assert desk.tidying.look()

    assert gone() is None
    assert not desk.tidying.look()


def test_a_late_look_comes_even_though_somebody_waits(desk: Desk) -> None:
    desk.busy = True
    desk.now += LATE_SECONDS

    assert desk.tidying.look()


def test_the_young_that_piled_up_are_looked_through_while_nobody_waits(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = cycle()
    monkeypatch.setattr("app.serving.tidying.PILED", 0)
    desk.busy = True
    assert not desk.tidying.look()
    assert gone() is not None
    desk.busy = False
    assert not desk.tidying.look(), "not through everything"
    assert gone() is None


def test_the_collector_is_left_as_it_was() -> None:
    before = gc.get_threshold()
    desk = Desk()
    desk.tidying.start()
    assert gc.get_threshold() != before
    assert gc.get_freeze_count() > 0

    desk.tidying.stop()

    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
