"""`perennial up` as a user meets it: the banner, the commands beside it, deaths, stops, mistakes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.instance import Instance

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 60.0

pytestmark = pytest.mark.slow


def perennial(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PERENNIAL_")}
    return subprocess.run(
        [sys.executable, "-m", "app.cli.entry", *arguments],
        cwd=ROOT,
        env={**clean, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def until(look: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not look():
        assert time.monotonic() < deadline, what


def children(pid: int) -> dict[str, int]:
    """The processes a supervisor started, by what they are."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes().decode()
        found["worker" if "worker" in command else "server"] = int(child)
    return found


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    with Instance(tmp_path_factory.mktemp("up") / "data") as started:
        yield started
        pids = children(started.pid).values()
        started.stop()
        assert not [pid for pid in pids if running(pid)], "SIGTERM stops everything"
        assert "Traceback" not in started.log_file.read_text()


def banner_of(instance: Instance) -> str:
    """The log with the banner, which comes when the supervisor has seen what we saw: that the server answers."""
    until(lambda: "Stop with Ctrl-C" in instance.log_file.read_text(), "the banner should be shown")
    return instance.log_file.read_text()


def test_the_banner_says_where_everything_is(instance: Instance) -> None:
    log = banner_of(instance)

    assert f"{instance.url}/docs" in log
    assert str(instance.folder.resolve()) in log
    assert len(re.findall(r"^(?:for .*\| )?curl -s ", log, re.MULTILINE)) == 3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_lines_of_the_banner_lead_to_a_model_that_knows_something(instance: Instance) -> None:
    log = banner_of(instance)
    create, teach, ask = re.findall(r"^(?:for .*\| )?curl -s .*$", log, re.MULTILINE)

    def paste(line: str) -> Any:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            env={**os.environ, "PERENNIAL_KEY": instance.key},
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=True,
        )
        return json.loads(done.stdout)

    assert paste(create)["live"] == 1
    assert paste(teach)["accepted"] == 40
    until(lambda: paste(ask)["predictions"][0]["label"] == "wide", "it should have learned what is wide")


def test_commands_work_beside_it(instance: Instance, tmp_path: Path) -> None:
    beside = {"PERENNIAL_URL": instance.url, "PERENNIAL_KEY": instance.key}
    (tmp_path / "point.json").write_text("[1.5, 2.5]")
    point = str(tmp_path / "point.json")

    assert "live as version 1" in perennial("models", "create", "points", "--features", "2", **beside).stdout
    assert "points" in perennial("models", "show", **beside).stdout
    predicted = perennial("predict", point, "--model", "points", **beside)
    assert "points, version 1" in predicted.stdout
    prediction = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", predicted.stdout)
    assert prediction is not None
    labelled = perennial("label", "low", "--file", point, "--model", "points", "--source", "anna", **beside)
    assert "queued" in labelled.stdout, labelled.stderr
    assert "initial" in perennial("versions", "--model", "points", **beside).stdout
    rolled_back = perennial("rollback", "--model", "points", "--reason", "none", **beside)
    assert rolled_back.returncode == 1
    assert "nothing before it" in rolled_back.stderr


@pytest.mark.parametrize(
    ("arguments", "key", "words"),
    [
        (["models", "show", "absent"], None, "There is no model named 'absent'"),
        (["models", "show"], "prn_wrong", "not valid here"),
        (["predict", "absent.png", "--model", "m"], None, "There is no file 'absent.png'"),
        (["models", "create", "BAD", "--features", "2"], None, "name"),
    ],
)
def test_what_goes_wrong_is_told_in_words(
    instance: Instance, arguments: list[str], key: str | None, words: str
) -> None:
    done = perennial(*arguments, PERENNIAL_URL=instance.url, PERENNIAL_KEY=key or instance.key)

    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_no_server_is_told_in_words() -> None:
    done = perennial("models", "show", "--url", "http://127.0.0.1:9")

    assert done.returncode == 1
    assert "perennial up" in done.stderr


def test_a_dead_worker_and_a_dead_server_are_replaced(instance: Instance) -> None:
    before = children(instance.pid)
    assert set(before) == {"server", "worker"}

    for pid in before.values():
        os.kill(pid, signal.SIGKILL)

    with instance.connection(DEADLINE_SECONDS) as connection:
        connection.get("/v1/models")  # waits for the next server instead of being refused
    until(lambda: set(children(instance.pid)) == {"server", "worker"}, "both should run again")
    assert not set(children(instance.pid).values()) & set(before.values())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_nothing_lingers_after_a_killed_supervisor(tmp_path: Path) -> None:
    started = Instance(tmp_path / "data")
    started.start()
    pids = list(children(started.pid).values())

    os.kill(started.pid, signal.SIGKILL)
    started.wait()

    until(lambda: not [pid for pid in pids if running(pid)], "the children should be gone")


def test_a_taken_port_and_a_wrong_setting_are_told_in_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        taken = perennial("up", "--port", port, "--data-dir", str(tmp_path))
    wrong = perennial("up", PERENNIAL_PORT="many", PERENNIAL_ADMIN_KEY="short")
    open_door = perennial("up", "--host", "0.0.0.0", "--data-dir", str(tmp_path), PERENNIAL_AUTH="off")

    assert taken.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in taken.stderr
    assert "PERENNIAL_PORT" in wrong.stderr
    assert "32 characters" in wrong.stderr
    assert "short" not in wrong.stderr
    assert "loopback" in open_door.stderr
    assert "Traceback" not in taken.stderr + wrong.stderr + open_door.stderr


def test_a_worker_that_cannot_start_ends_it_with_clear_words(tmp_path: Path) -> None:
    done = perennial("up", "--port", "0", "--data-dir", str(tmp_path), PERENNIAL_DEVICE="no-such-device")

    assert done.returncode == 1
    assert "worker ended at its start" in done.stderr
