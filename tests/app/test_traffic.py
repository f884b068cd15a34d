"""Servers say what is in work, workers of the same host read it."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.traffic import BELIEVED_NS, FILE, Traffic


class Clock:
    def __init__(self) -> None:
        self.now = 10 * BELIEVED_NS

    def __call__(self) -> int:
        return self.now


def test_a_reader_sees_what_begins_and_ends(tmp_path: Path) -> None:
    server, worker = Traffic(tmp_path), Traffic(tmp_path)
    assert not worker.in_work
    assert not worker.recent
    server.tell(2)
    assert worker.in_work == 2
    assert worker.recent
    server.tell(0)
    assert not worker.in_work
    assert worker.recent


def test_one_server_that_is_done_does_not_speak_for_another(tmp_path: Path) -> None:
    servers = [Traffic(tmp_path) for _ in range(2)]
    while servers[0]._mine == servers[1]._mine:  # drawn by lot
        servers[1] = Traffic(tmp_path)
    for one in servers:
        one.tell(1)
    servers[0].tell(0)
    assert Traffic(tmp_path).in_work


def test_the_word_of_a_killed_server_lapses(tmp_path: Path) -> None:
    clock = Clock()
    worker = Traffic(tmp_path, clock)
    Traffic(tmp_path, clock).tell(3)
    clock.now += BELIEVED_NS - 1
    assert worker.in_work
    clock.now += 1
    assert not worker.in_work
    assert not worker.recent


def test_words_of_a_clock_that_ran_further_are_not_believed_and_hide_no_other(tmp_path: Path) -> None:
    here, later = Clock(), Clock()
    later.now += 100 * BELIEVED_NS
    worker, server, elsewhere = Traffic(tmp_path, here), Traffic(tmp_path, here), Traffic(tmp_path, later)
    while server._mine == elsewhere._mine:  # drawn by lot
        server = Traffic(tmp_path, here)
    elsewhere.tell(1)
    assert not worker.in_work
    server.tell(1)
    assert worker.in_work


def test_another_process_sees_it(tmp_path: Path) -> None:
    server = Traffic(tmp_path)
    server.tell(1)
    code = f"from pathlib import Path; from app.traffic import Traffic; print(Traffic(Path({str(tmp_path)!r})).in_work)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["1"]


def test_where_the_folder_cannot_be_written_nobody_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).mkdir()
    server, worker = Traffic(tmp_path), Traffic(tmp_path)
    server.tell(1)
    assert server.in_work
    assert not worker.in_work
