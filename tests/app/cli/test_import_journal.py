"""The journal of imports, and the client that posts for them: what is remembered, what is tried again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.connection import Connection, Refused
from app.cli.importing.journal import TAKEN, Journal, Posted
from app.cli.importing.teacher import Teacher
from app.errors import Invalid, Unavailable


def test_what_was_recorded_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    chunk = [Posted("1", TAKEN), Posted("2", "wrong_size", "Expected 4 numbers.")]
    with Journal(tmp_path / "new" / "journal.db") as journal:
        first = journal.begin("pets", "the set", baseline=7)
        journal.record("pets", chunk)

    with Journal(tmp_path / "new" / "journal.db") as journal:
        again = journal.begin("pets", "the set", baseline=12)
        assert journal.posted("pets") == {one.sample: one for one in chunk}
        assert journal.posted("another model") == {}

    assert (first.resumed, again.resumed) == (False, True)
    assert (again.at, again.baseline) == (first.at, 7)


def test_a_chunk_recorded_twice_counts_once_and_the_last_answer_stands(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.db") as journal:
        journal.record("pets", [Posted("1", "queue_full", "later")])
        journal.record("pets", [Posted("1", TAKEN)])

        assert list(journal.posted("pets").values()) == [Posted("1", TAKEN)]


def test_a_chunk_is_recorded_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken() -> Any:
        yield Posted("1", TAKEN)
        raise KeyboardInterrupt

    with Journal(tmp_path / "journal.db") as journal:
        with pytest.raises(KeyboardInterrupt):
            journal.record("pets", broken())
        with pytest.raises(KeyboardInterrupt):
            journal.record("pets", (one for one in broken()))

        assert journal.posted("pets") == {}


def test_a_file_that_is_no_journal_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"something else entirely" * 100)

    with pytest.raises(Invalid, match="--journal"):
        Journal(tmp_path / "journal.db")


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def teacher(answer: Callable[[httpx.Request], httpx.Response], clock: Clock, said: list[str]) -> Teacher:
    connection = Connection("http://127.0.0.1:8000")
    connection._http = httpx.Client(base_url=connection.url, transport=httpx.MockTransport(answer))
    return Teacher(
        connection, "pets", patience_seconds=30, on_wait=said.append, sleep=clock.sleep, clock=lambda: clock.now
    )


def taken(request: httpx.Request) -> httpx.Response:
    count = len(json.loads(request.content)["samples"])
    return httpx.Response(202, json={"accepted": count, "duplicates": 0, "rejected": [], "samples": []})


def test_a_full_queue_is_waited_for_as_long_as_it_says_and_a_server_that_is_away_in_growing_pauses() -> None:
    clock, said = Clock(), list[str]()
    full = httpx.Response(429, json={"detail": "The queue is full."}, headers={"Retry-After": "7"})
    answers: list[Any] = [full, httpx.ConnectError("away"), httpx.ConnectError("away"), httpx.Response(503), None]

    def answer(request: httpx.Request) -> httpx.Response:
        now = answers.pop(0)
        if isinstance(now, Exception):
            raise now
        return taken(request) if now is None else now

    sent = teacher(answer, clock, said).post([{"id": "1", "label": "cat"}])

    assert sent.posted == (Posted("1", TAKEN),)
    assert clock.slept[0] == 7
    assert clock.slept[1:] == sorted(clock.slept[1:])
    assert said[0] == "The queue is full; trying again in 7 s."


def test_patience_ends() -> None:
    clock, said = Clock(), list[str]()

    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("away")

    with pytest.raises(Unavailable):
        teacher(away, clock, said).post([{"id": "1", "label": "cat"}])

    assert clock.now == 30


def test_refusals_are_told_apart_even_when_nothing_of_a_chunk_was_taken() -> None:
    rejected = [{"index": 0, "code": "wrong_size", "detail": "Expected 4 numbers, got 3."}]
    problem = {"detail": "None.", "accepted": 0, "duplicates": 0, "rejected": rejected, "samples": []}
    told = teacher(lambda request: httpx.Response(422, json=problem), Clock(), [])

    sent = told.post([{"id": "1", "label": "cat"}])

    assert sent.posted == (Posted("1", "wrong_size", "Expected 4 numbers, got 3."),)
    assert sent.posted[0].refused


def test_an_answer_that_no_waiting_mends_is_raised_at_once() -> None:
    clock = Clock()

    with pytest.raises(Refused, match="key"):
        teacher(lambda request: httpx.Response(401, json={"detail": "no key"}), clock, []).show()

    assert clock.slept == []
