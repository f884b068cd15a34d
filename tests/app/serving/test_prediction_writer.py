"""Predictions are written behind: never waited for, never forgotten in silence."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

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


def record(name: str, content: bytes = b"input") -> PredictionRecord:
    return PredictionRecord(
        id=name, model_id=1, version=1, label="a", score=0.5, top=(), content=content, created_at=NOW
    )


def test_a_record_is_found_before_and_after_it_is_written(predictions: PredictionLog) -> None:
    writer = PredictionWriter(predictions, keep_days=1, keep_bytes=1 << 20)
    writer.write([record("one")])
    assert writer.find("one") is not None

    writer.start()
    assert writer.flush()

    assert writer.find("one") is None
    assert predictions.content(1, "one") == b"input"
    writer.stop()


def test_a_full_queue_drops_and_counts(predictions: PredictionLog) -> None:
    writer = PredictionWriter(predictions, keep_days=1, keep_bytes=1 << 20, queue_records=2, queue_bytes=100)
    writer.write([record("one"), record("two")])

    writer.write([record("three")])

    assert (writer.dropped, writer.depth, writer.find("three")) == (1, 2, None)
    small = PredictionWriter(predictions, keep_days=1, keep_bytes=1 << 20, queue_bytes=100)
    small.write([record("big", b"0" * 101)])
    assert small.dropped == 1


def test_stopping_writes_what_waits(predictions: PredictionLog) -> None:
    writer = PredictionWriter(predictions, keep_days=1, keep_bytes=1 << 20)
    writer.start()
    writer.write([record(f"{number}") for number in range(1200)])

    writer.stop()

    assert predictions.content(1, "1199") == b"input"
    assert writer.depth == 0


def test_a_group_that_cannot_be_written_is_given_up_and_counted(predictions: PredictionLog) -> None:
    writer = PredictionWriter(predictions, keep_days=1, keep_bytes=1 << 20)
    stranger = PredictionRecord(
        id="x", model_id=99, version=1, label=None, score=None, top=(), content=b"", created_at=NOW
    )
    writer.write([stranger])
    writer.start()

    writer.stop()

    assert (writer.dropped, writer.depth) == (1, 0)


def test_old_predictions_are_pruned_now_and_then(predictions: PredictionLog) -> None:
    moments = iter([0.0, *([100.0] * 50)])
    writer = PredictionWriter(predictions, keep_days=1, keep_bytes=0, clock=lambda: next(moments))
    writer.start()
    writer.write([record("one")])

    writer.stop()

    assert predictions.prune(1, 0) == 0


def test_what_is_kept_is_not_outgrown_until_the_minute_is_over(predictions: PredictionLog) -> None:
    writer = PredictionWriter(predictions, keep_days=1, keep_bytes=4000, clock=lambda: 0.0)
    writer.start()
    for n in range(8):
        writer.write([record(f"{n}", b"x" * 1100)])
        assert writer.flush()

    writer.stop()

    assert predictions.prune(1, 4000) == 0, "nothing is left to let go"
