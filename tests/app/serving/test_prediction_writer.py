"""Predictions are written behind: never waited for, never forgotten in silence."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from uuid_utils import uuid7

from app.recipe import FeaturesInput, NetworkChoice, NewModel
from app.serving.prediction_writer import PredictionWriter
from app.storage.database import Database
from app.storage.migrate import upgrade
from app.storage.predictions import PredictionLog, PredictionRecord
from app.storage.registry import ModelRegistry


@pytest.fixture
def predictions(tmp_path: Path) -> Iterator[PredictionLog]:
    database = Database(f"sqlite:///{tmp_path / 'perennial.db'}")
    upgrade(database)
    new = NewModel(name="m", input=FeaturesInput(size=2), network=NetworkChoice(architecture="mlp"))
    ModelRegistry(database).create(new, "test")
    yield PredictionLog(database)
    database.close()


NOW = datetime.now(UTC)


def record(content: bytes = b"input") -> PredictionRecord:
    return PredictionRecord(
        id=str(uuid7()), model_id=1, version=1, label="a", score=0.5, top=(), content=content, created_at=NOW
    )


def test_a_record_is_found_before_and_after_it_is_written(predictions: PredictionLog) -> None:
    writer = PredictionWriter(predictions, keep_days=1, keep_bytes=1 << 20)
    one = record()
    writer.write([one])
    assert writer.find(one.id) == one

    writer.start()
    assert writer.flush()

    assert writer.find(one.id) is None
    assert predictions.get(1, one.id).content == b"input"
    writer.stop()


def test_a_full_queue_drops_and_counts(predictions: PredictionLog) -> None:
    writer = PredictionWriter(predictions, keep_days=1, keep_bytes=1 << 20, queue_records=2, queue_bytes=100)
    writer.write([record(), record()])
    third = record()

    writer.write([third])

    assert (writer.dropped, writer.depth, writer.find(third.id)) == (1, 2, None)
    small = PredictionWriter(predictions, keep_days=1, keep_bytes=1 << 20, queue_bytes=100)
    small.write([record(b"0" * 101)])
    assert small.dropped == 1


def test_stopping_writes_what_waits(predictions: PredictionLog) -> None:
    writer = PredictionWriter(predictions, keep_days=1, keep_bytes=1 << 20)
    writer.start()
    many = [record() for _ in range(1200)]
    writer.write(many)

    writer.stop()

    assert [predictions.get(1, one.id).id for one in (many[0], many[-1])] == [many[0].id, many[-1].id]
    assert writer.depth == 0


def test_a_group_that_cannot_be_written_is_given_up_and_counted(predictions: PredictionLog, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'perennial.db'}")
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE prediction_packs"))
    database.close()
    writer = PredictionWriter(predictions, keep_days=1, keep_bytes=1 << 20)
    writer.write([record()])
    writer.start()

    writer.stop()

    assert (writer.dropped, writer.depth) == (1, 0)


def test_old_predictions_are_pruned_now_and_then(predictions: PredictionLog) -> None:
    moments = iter([0.0, *([100.0] * 50)])
    writer = PredictionWriter(predictions, keep_days=1, keep_bytes=0, clock=lambda: next(moments))
    writer.start()
    writer.write([record()])

    writer.stop()

    assert predictions.prune(1, 0) == 0


def test_what_is_kept_is_not_outgrown_until_the_minute_is_over(predictions: PredictionLog) -> None:
    writer = PredictionWriter(predictions, keep_days=1, keep_bytes=4000, clock=lambda: 0.0)
    writer.start()
    for _ in range(8):
        writer.write([record(b"x" * 1100)])
        assert writer.flush()

    writer.stop()

    assert predictions.prune(1, 4000) == 0, "nothing is left to let go"
