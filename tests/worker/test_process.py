"""`python -m worker`, as it is started: learns what waits, stops on a signal, says why it cannot start."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from app.errors import PerennialError
from tests.worker.school import School
from worker.__main__ import choose_device

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 90


def start(folder: Path, **settings: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PERENNIAL_DATA_DIR": str(folder),
        "PERENNIAL_DEVICE": "cpu",
        **{f"PERENNIAL_{name.upper()}": value for name, value in settings.items()},
    }
    return subprocess.Popen(
        [sys.executable, "-m", "worker"], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
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


def test_the_device_is_taken_by_its_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}
    with pytest.raises(PerennialError, match="toaster"):
        choose_device("toaster")
