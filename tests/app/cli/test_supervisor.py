"""The supervisor with real child processes: small Python programs that live, die and resist."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from app.cli.supervisor import CannotStart, Child, Supervisor

DEADLINE_SECONDS = 20.0


def program(tmp_path: Path, name: str, text: str) -> list[str]:
    file = tmp_path / f"{name}.py"
    file.write_text(textwrap.dedent(text))
    return [sys.executable, str(file)]


def lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def signal_when(condition, number: int = signal.SIGTERM) -> threading.Thread:  # type: ignore[no-untyped-def]
    """Send this process a signal as soon as the condition holds, or at the deadline."""

    def watch() -> None:
        end = time.monotonic() + DEADLINE_SECONDS
        while not condition() and time.monotonic() < end:
            os.sched_yield()
            threading.Event().wait(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_dead_child_is_started_again_and_all_stop_at_a_signal(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    command = program(
        tmp_path,
        "mortal",
        f"""
        import pathlib, signal, sys
        with open({str(starts)!r}, "a") as file:
            file.write("started\\n")
        if len(pathlib.Path({str(starts)!r}).read_text().splitlines()) < 3:
            sys.exit(7)
        signal.pause()
        """,
    )
    child = Child("mortal", command, os.environ, answers=lambda: True, starts=5)

    watcher = signal_when(lambda: len(lines_of(starts)) == 3)
    Supervisor([child]).run()
    watcher.join()

    assert len(lines_of(starts)) == 3
    assert child.process is None


def test_ctrl_c_stops_it_too(tmp_path: Path) -> None:
    started = tmp_path / "started"
    command = program(
        tmp_path, "patient", f"import signal, pathlib; pathlib.Path({str(started)!r}).touch(); signal.pause()"
    )

    watcher = signal_when(started.exists, signal.SIGINT)
    Supervisor([Child("patient", command, os.environ, answers=lambda: True)]).run()
    watcher.join()


def test_a_child_that_ignores_sigterm_is_killed_after_the_bounded_wait(tmp_path: Path) -> None:
    started = tmp_path / "started"
    command = program(
        tmp_path,
        "stubborn",
        f"""
        import signal, pathlib
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pathlib.Path({str(started)!r}).touch()
        while True:
            signal.pause()
        """,
    )

    watcher = signal_when(started.exists)
    began = time.monotonic()
    Supervisor([Child("stubborn", command, os.environ, answers=lambda: True)], stop_seconds=0.3).run()
    watcher.join()

    assert time.monotonic() - began < DEADLINE_SECONDS


def test_a_child_that_never_comes_up_ends_everything_with_clear_words(tmp_path: Path) -> None:
    fine = Child("server", program(tmp_path, "fine", "import signal; signal.pause()"), os.environ, answers=lambda: True)
    broken = Child("worker", program(tmp_path, "broken", "raise SystemExit(3)"), os.environ, starts=2)

    with pytest.raises(CannotStart, match=r"worker ended at its start \(exit code 3\)"):
        Supervisor([fine, broken]).run()

    assert fine.process is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = program(
        tmp_path,
        "orphan",
        f"""
        import os, signal, pathlib
        pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))
        signal.pause()
        """,
    )
    parent = program(
        tmp_path,
        "parent",
        f"""
        import os
        from app.cli.supervisor import Child, Supervisor
        Supervisor([Child("orphan", {child!r}, os.environ)]).run()
        """,
    )
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(parent, env={**os.environ, "PYTHONPATH": str(root)}) as supervisor:
        end = time.monotonic() + DEADLINE_SECONDS
        while not (pid_file.exists() and pid_file.read_text()):
            assert time.monotonic() < end
            threading.Event().wait(0.02)
        orphan = int(pid_file.read_text())
        supervisor.kill()
    while Path(f"/proc/{orphan}").exists() and _state(orphan) != "Z":
        assert time.monotonic() < end, "the child outlived its supervisor"
        threading.Event().wait(0.02)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"


def test_a_child_is_deaf_to_ctrl_c_but_of_the_supervisors_session(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    command = program(
        tmp_path,
        "grouped",
        f"""
        import os, pathlib, signal
        pathlib.Path({str(seen)!r}).write_text(f"{{os.getpgid(0)}}\\n{{os.getsid(0)}}\\n")
        signal.pause()
        """,
    )

    watcher = signal_when(lambda: len(lines_of(seen)) == 2)
    Supervisor([Child("grouped", command, os.environ, answers=lambda: True)]).run()
    watcher.join()

    group, session = map(int, lines_of(seen))
    assert group != os.getpgid(0)
    assert session == os.getsid(0)
