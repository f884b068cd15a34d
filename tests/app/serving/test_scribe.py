"""The scribe writes what a spool holds, says what it gave up, and lets old predictions go."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import text
from uuid_utils import uuid7

from app.recipe import FeaturesInput, NetworkChoice, NewModel
from app.serving.scribe import NOW, PRUNE_SECONDS, SOON, TRIES, Scribe
from app.serving.spool import Spool, spool_file
from app.storage.database import Database
from app.storage.migrate import upgrade
from app.storage.predictions import Encoded, PredictionLog, PredictionRecord
from app.storage.registry import ModelRegistry


class Desk:
    """A spool, a log, and what is put from one into the other."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder / 'perennial.db'}")
        upgrade(self.database)
        new = NewModel(name="m", input=FeaturesInput(size=2), network=NetworkChoice(architecture="mlp"))
        ModelRegistry(self.database).create(new, "test")
        self.log = PredictionLog(self.database)
        self.file = spool_file(1 << 20)
        self.spool = Spool(self.file)
        self.moment = 0.0
        self.slept: list[float] = []

    def scribe(self, *, keep_bytes: int = 1 << 20, clock: Callable[[], float] | None = None) -> Scribe:
        return Scribe(
            self.spool,
            self.log,
            keep_days=1,
            keep_bytes=keep_bytes,
            clock=clock or (lambda: self.moment),
            sleep=self.slept.append,
        )

    def put(self, content: bytes = b"input") -> PredictionRecord:
        record = PredictionRecord(str(uuid7()), 1, 1, "a", 0.5, (), content, datetime.now(UTC))
        assert self.spool.put(Encoded.of(record).to_bytes())
        return record

    def written(self) -> int:
        with self.database.engine.connect() as connection:
            return connection.execute(text("SELECT COALESCE(SUM(predictions), 0) FROM prediction_packs")).scalar_one()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.database.close()
    os.close(made.file)


def test_all_that_is_there_is_written_once(desk: Desk) -> None:
    scribe = desk.scribe()
    records = [desk.put(bytes([number])) for number in range(200)]

    assert scribe.write()
    assert not scribe.write()

    assert desk.spool.depth == 0
    assert [desk.log.get(1, one.id).content for one in records] == [one.content for one in records]


def test_what_was_written_but_not_let_go_is_not_written_twice(desk: Desk) -> None:
    for _ in range(100):
        desk.put()
    taken = desk.spool.take(70, 1 << 20)
    desk.log.write([Encoded.from_bytes(one) for one in taken])  # and there it was killed
    desk.put()

    desk.scribe().write()

    assert desk.written() == 101


def test_a_group_that_cannot_be_written_is_given_up_and_counted(desk: Desk) -> None:
    with desk.database.engine.begin() as connection:
        connection.execute(text("DROP TABLE prediction_packs"))
    desk.put()

    desk.scribe().write()

    assert (desk.spool.lost, desk.spool.depth) == (1, 0)
    assert len(desk.slept) == TRIES - 1


def test_old_predictions_are_let_go_once_a_minute(desk: Desk) -> None:
    written = desk.scribe()
    desk.put(b"x" * 900)
    written.write()
    desk.put(b"x" * 10)
    written.write()
    scribe = desk.scribe(keep_bytes=1000)

    scribe.prune()
    assert desk.written() == 2
    desk.moment = PRUNE_SECONDS
    scribe.prune()
    assert desk.written() == 1


def test_what_is_kept_is_not_outgrown_until_the_minute_is_over(desk: Desk) -> None:
    scribe = desk.scribe(keep_bytes=4000)
    for _ in range(8):
        desk.put(b"x" * 1100)
        scribe.write()
        scribe.prune()

    assert desk.log.prune(1, 4000) == 0, "nothing is left to let go"


def test_it_writes_when_told_and_when_the_server_is_gone(desk: Desk) -> None:
    theirs, ours = os.pipe()
    scribe = desk.scribe(clock=lambda: 0.0)  # so that it never is time by itself
    running = Thread(target=scribe.run, args=(theirs,))
    running.start()
    desk.put()
    os.write(ours, NOW)
    while desk.spool.depth:
        pass
    assert desk.written() == 1

    desk.put()
    os.write(ours, SOON)
    os.close(ours)
    running.join(30)

    assert desk.written() == 2
    os.close(theirs)


def test_it_looks_once_more_by_itself_after_it_was_told(desk: Desk) -> None:
    theirs, ours = os.pipe()
    running = Thread(target=Scribe(desk.spool, desk.log, keep_days=1, keep_bytes=1 << 20).run, args=(theirs,))
    running.start()
    for word in (SOON, NOW):
        os.write(ours, word)
        desk.put()
        while desk.spool.depth:
            pass

    os.close(ours)
    running.join(30)
    assert desk.written() == 2
    os.close(theirs)
