"""The heartbeat's thread, told by what it is given."""

import threading

import pytest

from app.errors import LeaseLost
from worker.heartbeat import Heartbeat

DEADLINE_SECONDS = 20


class Leases:
    """Answers each beat in turn with what it was given; the last answer stays."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.beats = 0
        self.beaten = threading.Event()

    def heartbeat(self, update_id: int, lease_seconds: float) -> None:
        self.beats += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if self.beats >= 3:
            self.beaten.set()
        if answer is not None:
            raise answer


def test_it_beats_until_the_work_is_done() -> None:
    leases = Leases(None)
    with Heartbeat(leases, 1, lease_seconds=0.04) as heartbeat:
        assert leases.beaten.wait(DEADLINE_SECONDS)
    beats = leases.beats
    assert not heartbeat.lost.is_set()
    assert not any(thread.name == "heartbeat-1" for thread in threading.enumerate())
    assert leases.beats == beats


def test_a_lost_lease_is_told_at_once() -> None:
    with Heartbeat(Leases(None, LeaseLost(1)), 1, lease_seconds=0.04) as heartbeat:
        assert heartbeat.lost.wait(DEADLINE_SECONDS)


def test_a_database_that_is_away_for_a_moment_ends_nothing() -> None:
    leases = Leases(OSError("away"), OSError("away"), None)
    with Heartbeat(leases, 1, lease_seconds=0.04) as heartbeat:
        assert leases.beaten.wait(DEADLINE_SECONDS)
        assert not heartbeat.lost.is_set()


def test_an_error_of_the_work_comes_through() -> None:
    with pytest.raises(ValueError, match="work"), Heartbeat(Leases(None), 1, lease_seconds=60):
        raise ValueError("work")
