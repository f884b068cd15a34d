"""Predictions are written behind: never waited for, never forgotten in silence, whoever dies."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from uuid_utils import uuid7

from app.recipe import FeaturesInput, NetworkChoice, NewModel
from app.serving.prediction_writer import PredictionWriter
from app.serving.scribe import Terms
from app.storage.database import Database
from app.storage.migrate import upgrade
from app.storage.predictions import PredictionLog, PredictionRecord
from app.storage.registry import ModelRegistry

Make = Callable[..., PredictionWriter]
NOW = datetime.now(UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "perennial.db"


@pytest.fixture
def predictions(file: Path) -> Iterator[PredictionLog]:
    database = Database(f"sqlite:///{file}")
    upgrade(database)
    new = NewModel(name="m", input=FeaturesInput(size=2), network=NetworkChoice(architecture="mlp"))
    ModelRegistry(database).create(new, "test")
    yield PredictionLog(database)
    database.close()


@pytest.fixture
def make(file: Path, predictions: PredictionLog) -> Iterator[Make]:
    made: list[PredictionWriter] = []

    def writer(**settings: int) -> PredictionWriter:
        made.append(PredictionWriter(terms(file), **settings))
        return made[-1]

    yield writer
    for one in made:
        one.stop()


def terms(file: Path | str) -> Terms:
    return Terms(database=f"sqlite:///{file}", keep_days=1, keep_bytes=1 << 30)


def record(content: bytes = b"input") -> PredictionRecord:
    return PredictionRecord(
        id=str(uuid7()), model_id=1, version=1, label="a", score=0.5, top=(), content=content, created_at=NOW
    )


def test_a_record_is_found_before_and_after_it_is_written(predictions: PredictionLog, make: Make) -> None:
    writer = make()
    one = record()
    writer.write([one])
    assert writer.find(one.id) == one

    assert writer.flush()

    assert writer.find(one.id) is None
    assert predictions.get(1, one.id).content == b"input"


def test_what_finds_no_room_is_dropped_and_counted(file: Path, make: Make) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # so that nothing is written meanwhile
        writer = make(queue_records=2)
        writer.write([record(), record()])
        third = record()

        writer.write([third])

        assert (writer.dropped, writer.depth, writer.find(third.id)) == (1, 2, None)
        small = make(queue_bytes=100)
        small.write([record(b"0" * 101)])
        assert small.dropped == 1


def test_stopping_writes_what_waits(predictions: PredictionLog, make: Make) -> None:
    writer = make()
    many = [record() for _ in range(1200)]
    writer.write(many)

    writer.stop()

    assert [predictions.get(1, one.id).id for one in (many[0], many[-1])] == [many[0].id, many[-1].id]
    assert writer.depth == 0
    late = record()
    writer.write([late])
    assert (writer.dropped, writer.find(late.id)) == (1, None)


def test_a_group_that_cannot_be_written_is_given_up_and_counted(file: Path, make: Make) -> None:
    database = Database(f"sqlite:///{file}")
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE prediction_packs"))
    database.close()
    writer = make()
    writer.write([record()])

    writer.stop()

    assert (writer.dropped, writer.depth) == (1, 0)


def test_one_that_was_never_asked_has_no_scribe(make: Make) -> None:
    writer = make()

    assert writer.scribe is None
    writer.stop()
    assert writer.scribe is None


def test_a_scribe_that_was_killed_is_replaced_and_nothing_is_lost(predictions: PredictionLog, make: Make) -> None:
    writer = make()
    writer.start()
    records: list[PredictionRecord] = []
    killed = set()
    for turn in range(40):
        group = [record(bytes([turn])) for _ in range(50)]
        writer.write(group)
        records += group
        if turn % 10 == 9:
            assert writer.flush()
            killed.add(writer.scribe)
            os.kill(writer.scribe or 0, signal.SIGKILL)

    writer.stop()

    assert len(killed) > 1
    assert (writer.dropped, writer.depth) == (0, 0)
    assert [predictions.get(1, one.id).content for one in records] == [one.content for one in records]


SERVER = """
import os, signal, sys
from tests.app.serving.test_prediction_writer import PredictionWriter, record, terms

writer = PredictionWriter(terms(sys.argv[1]))
records = [record() for _ in range(500)]
writer.write(records[:1])
writer.flush()
writer.write(records[1:])
print(*(one.id for one in records), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_server_that_is_killed_loses_none(file: Path, predictions: PredictionLog) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER, str(file)], stdout=subprocess.PIPE, text=True) as server:
        printed, _ = server.communicate(timeout=60)  # up to the end of the scribe, which has the output in common

    assert server.returncode == -signal.SIGKILL
    assert len(printed.split()) == 500
    assert [predictions.get(1, one).id for one in printed.split()] == printed.split()
