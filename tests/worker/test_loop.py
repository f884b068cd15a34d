"""The loop: models take turns, errors end nothing, a stop is heeded."""

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.errors import LeaseLost
from app.storage.claims import Claim
from app.storage.states import SampleState
from tests.worker.school import School
from worker.loop import GiveWay, Loop, Pace

EAGER: dict[str, Any] = {"trigger": {"samples": 1, "seconds": 0}}


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def loop(
    school: School,
    perform: Callable[[Claim, GiveWay], None],
    *,
    stop: threading.Event | None = None,
    keep_house: Callable[[], object] = lambda: None,
    clock: Callable[[], float] | None = None,
) -> Loop:
    return Loop(
        school.queue,
        perform,
        worker="w1",
        stop=stop or threading.Event(),
        keep_house=keep_house,
        pace=Pace(poll_seconds=0.01, claim_limit=4),
        clock=clock or Clock(),
    )


def test_models_take_turns_so_that_a_busy_one_starves_no_other(school: School) -> None:
    models = [school.create(name, **EAGER) for name in ("one", "two", "three")]
    for model in models:
        school.post(model, range(12))
    served: list[str] = []

    def perform(claim: Claim, give_way: GiveWay) -> None:
        served.append(claim.model.name)
        school.updater().perform(claim, give_way)

    running = loop(school, perform)
    for _ in range(6):
        assert running.round()
    assert served == ["one", "two", "three"] * 2


def test_with_nothing_due_a_round_does_nothing(school: School) -> None:
    school.create()
    assert not loop(school, school.updater().perform).round()


def test_a_failed_update_is_told_to_the_queue_and_the_loop_goes_on(school: School) -> None:
    model = school.create(**EAGER)
    ids = school.post(model, range(4))

    def perform(claim: Claim, give_way: GiveWay) -> None:
        raise RuntimeError("out of luck")

    running = loop(school, perform)
    assert running.round()
    assert {school.state(model, sample_id) for sample_id in ids} == {SampleState.QUEUED}
    # The first retry is at once, with half the samples at a time; then they rest.
    assert [running.round() for _ in range(3)] == [True, True, False]


def test_an_overtaken_update_is_no_failure(school: School) -> None:
    model = school.create(**EAGER)
    school.post(model, range(4))

    def perform(claim: Claim, give_way: GiveWay) -> None:
        school.queue.release(claim.update_id, "taken")
        raise LeaseLost(claim.update_id)

    running = loop(school, perform)
    for _ in range(6):  # would be set aside after five attempts
        assert running.round()


def test_run_survives_whatever_a_round_raises_and_ends_when_told(school: School) -> None:
    model = school.create(**EAGER)
    school.post(model, range(4))
    stop, clock, calls = threading.Event(), Clock(), []

    def keep_house() -> None:
        calls.append(1)
        raise OSError("no house")

    def perform(claim: Claim, give_way: GiveWay) -> None:
        stop.set()
        school.queue.release(claim.update_id, "stopping")

    def ticking() -> float:
        clock.at += 61
        return clock.at if not calls else 0.0

    thread = threading.Thread(target=loop(school, perform, stop=stop, keep_house=keep_house, clock=ticking).run)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert calls


def test_lapsed_leases_are_reaped_now_and_then(school: School) -> None:
    model = school.create()
    ids = school.post(model, range(4))
    school.claim(model, lease_seconds=-1)
    clock = Clock()
    running = loop(school, lambda claim: None, clock=clock)
    running.round()
    assert school.state(model, ids[0]) == SampleState.CLAIMED
    clock.at = 6
    running.round()
    assert school.state(model, ids[0]) == SampleState.QUEUED


def test_the_loop_needs_no_torch() -> None:
    code = "import sys, worker.loop; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("failures", [1, 5, 40])
def test_the_back_off_grows_and_is_bounded(school: School, failures: int) -> None:
    running = loop(school, lambda claim: None)
    running._failures = failures
    assert running._pause() == min(30.0, 0.01 * 2 ** min(failures, 16))


def test_an_idle_round_ends_the_back_off(school: School) -> None:
    running = loop(school, lambda claim: None)
    running._failures = 40  # the database was away for long
    assert not running.round()
    assert running._pause() == 0.01
