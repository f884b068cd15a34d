"""Loading rests while requests are in work, in proportion to its work, and never for long."""

import ctypes
import os
import platform
import struct
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.serving.pace import LONG_SLICE_NS, Pace, give_way_at_once, step_back

LINUX_6_12 = (
    sys.platform == "linux"
    and platform.machine() in ("x86_64", "aarch64")
    and tuple(map(int, platform.release().split(".")[:2])) >= (6, 12)
)


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


@pytest.mark.skipif(not LINUX_6_12, reason="Linux gives threads a slice of their own from 6.12 on")
def test_a_thread_that_gives_way_at_once_keeps_its_niceness_and_has_a_longer_slice_than_others() -> None:
    def job() -> tuple[int, int]:
        step_back(3)
        give_way_at_once()
        told = ctypes.create_string_buffer(48)
        assert ctypes.CDLL(None).syscall({"x86_64": 315, "aarch64": 275}[platform.machine()], 0, told, 48, 0) == 0
        fields = struct.unpack("IIQiIQQQ", told.raw)
        return fields[3], fields[5]

    nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(job).result(10) == (nice + 3, LONG_SLICE_NS)


def test_to_give_way_at_once_is_no_matter_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "an unknown one")
    give_way_at_once()
