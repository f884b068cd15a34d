"""Processes of one host that ask each other: here several in one, over real local sockets."""

import socket
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.serving.siblings import Place, Siblings
from tests.processes.processes import wait_until


def test_one_that_is_alone_asks_nobody_and_opens_nothing() -> None:
    alone = Siblings()
    alone.start({})

    alone.tell("look")

    assert alone.ask("figures") == {}
    alone.stop()


def test_each_asks_all_the_others_and_those_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    asker, second = (Siblings(Place(tmp_path, number, 3)) for number in (1, 2))
    asker.start({"who": lambda: b"first"})
    second.start({"who": lambda: b"second" * 100_000})
    try:
        assert asker.ask("who") == {2: b"second" * 100_000}
        assert second.ask("who") == {1: b"first"}
        assert Place(tmp_path, 2, 3).taken()
        assert not Place(tmp_path, 3, 3).taken()
    finally:
        asker.stop()
        second.stop()
    assert asker.ask("who") == {}
    assert not Place(tmp_path, 2, 3).taken()


def test_a_word_is_heard_by_all_and_an_unknown_one_or_an_error_ends_nothing(tmp_path: Path) -> None:
    heard = threading.Semaphore(0)
    siblings = [Siblings(Place(tmp_path, number, 3)) for number in (1, 2, 3)]
    for one in siblings:
        one.start({"look": heard.release, "fail": lambda: b"%d" % (1 // 0)})
    try:
        siblings[0].tell("unheard-of")
        assert siblings[0].ask("fail") == {2: b"", 3: b""}
        siblings[0].tell("look")
        assert all(heard.acquire(timeout=10) for _ in range(2))
        assert not heard.acquire(blocking=False)
    finally:
        for one in siblings:
            one.stop()


def test_a_look_whether_somebody_is_there_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = Place(tmp_path, 1, 2)
    here = Siblings(place)
    here.start({})
    try:
        assert place.taken()
    finally:
        here.stop()
    assert caplog.records == []


def test_a_want_of_descriptors_ends_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    place = Place(tmp_path, 1, 2)
    here = Siblings(place)
    here.start({"who": lambda: b"first"})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with capture_logs() as logs, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(10)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # those that are open stay so
            line.connect(str(tmp_path / "1.sock"))
            line.sendall(b"who")
            wait_until(lambda: bool(logs), "it was not let in", 10)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

            assert line.recv(64) == b"first"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        here.stop()


def test_an_answer_that_cannot_be_given_for_want_of_a_file_is_told_of(tmp_path: Path) -> None:
    asker, other = (Siblings(Place(tmp_path, number, 2)) for number in (1, 2))
    other.start({"read": (tmp_path / "missing").read_bytes})
    try:
        with capture_logs() as logs:
            assert asker.ask("read") == {2: b""}
        assert [one["event"] for one in logs] == ["sibling not answered"]
    finally:
        other.stop()


def test_a_place_is_taken_over_from_one_that_died(tmp_path: Path) -> None:
    place = Place(tmp_path, 2, 2)
    place.listen().close()  # its socket's file is still there
    successor, asker = Siblings(place), Siblings(Place(tmp_path, 1, 2))
    assert not place.taken()
    successor.start({"who": lambda: b"the new one"})
    try:
        assert asker.ask("who") == {2: b"the new one"}
    finally:
        successor.stop()


def test_a_place_is_the_same_after_a_command_line(tmp_path: Path) -> None:
    place = Place(tmp_path / "a: b", 3, 8)

    assert Place.read(place.written()) == place
