"""`python -m worker`, as it is started: learns what waits, stops on a signal, says why it cannot start."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.worker.school import School

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 90


def start(folder: Path, *, session: bool = False, **settings: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PERENNIAL_DATA_DIR": str(folder),
        "PERENNIAL_DEVICE": "cpu",
        "PERENNIAL_WORKER_SCHEDULING": "nice",  # the machine may be busy with other tests
        **{f"PERENNIAL_{name.upper()}": value for name, value in settings.items()},
    }
    return subprocess.Popen(
        [sys.executable, "-m", "worker"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=session,
    )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Look again and again, as the process has no other way to tell; fails when it ends or the time is over."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(process.stderr.read() if process.stderr else "")


def test_it_learns_what_waits_and_stops_on_a_signal(school: School, tmp_path: Path) -> None:
    models = [school.create(name, trigger={"samples": 32, "seconds": 0}) for name in ("one", "two")]
    for model in models:
        school.post(model, range(64))
    process = start(tmp_path)
    try:
        wait_until(lambda: all(school.live(model).number > 1 for model in models), process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "worker stopped" in errors
    assert all(school.accuracy(model) > 0.5 for model in models)


def test_a_setting_that_is_wrong_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    process = start(tmp_path, device="toaster")
    _, errors = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 1
    assert "toaster" in errors
    assert "Traceback" not in errors


def _policies(process: subprocess.Popen[str]) -> set[int]:
    """By which policies its threads are scheduled."""
    found = set()
    for thread in Path(f"/proc/{process.pid}/task").iterdir():
        with suppress(ProcessLookupError):  # one that has just ended
            found.add(os.sched_getscheduler(int(thread.name)))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a class for what runs when nothing else does")
def test_it_learns_in_the_time_that_others_leave(school: School, tmp_path: Path) -> None:
    process = start(tmp_path, session=True, worker_scheduling="idle")
    try:
        wait_until(lambda: _policies(process) == {os.SCHED_IDLE}, process)
        autogroup = Path(f"/proc/{process.pid}/autogroup")
        wait_until(lambda: not autogroup.exists() or autogroup.read_text().split()[1:] == ["nice", "19"], process)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of a process")
def test_it_takes_a_share_where_that_is_asked(school: School, tmp_path: Path) -> None:
    process = start(tmp_path, worker_scheduling="nice", worker_nice="7")
    try:
        wait_until(lambda: os.getpriority(os.PRIO_PROCESS, process.pid) == 7, process)
        assert _policies(process) == {os.SCHED_OTHER}
    finally:
        process.kill()
        process.communicate()
