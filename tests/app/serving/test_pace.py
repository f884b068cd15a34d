"""Loading rests while requests are in work, in proportion to its work, and never for long."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.serving.pace import Pace, step_back


def test_it_rests_three_times_its_work_while_busy_and_not_at_all_otherwise() -> None:
    worked = iter([0.0, 0.0, 0.01, 0.01, 0.05, 0.05])
    busy = iter([True, False])
    rests: list[float] = []
    pace = Pace(lambda: next(busy), share=0.25, worked=lambda: next(worked), rest=rests.append)

    pace()
    pace()
    pace()

    assert rests == [pytest.approx(0.03)]


def test_a_long_step_is_rested_for_within_bounds() -> None:
    worked = iter([0.0, 0.0, 60.0, 60.0])
    rests: list[float] = []
    pace = Pace(lambda: True, share=0.5, worked=lambda: next(worked), rest=rests.append)
    pace()
    pace()
    assert rests == [pytest.approx(0.25)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives each thread a niceness of its own")
def test_only_the_thread_that_steps_back_is_niced() -> None:
    found: list[int] = []

    def run() -> None:
        step_back(3)
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=10)

    assert found == [before + 3]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives each thread a niceness of its own")
def test_a_thread_that_is_nicer_already_stays_so() -> None:
    def job() -> int:
        step_back(7)
        step_back(3)  # to take back is a privilege, which a server has not
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(job).result(10) == before + 7
