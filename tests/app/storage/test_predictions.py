from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from uuid_utils import uuid7

from app.errors import PredictionExpired, UnknownPrediction
from app.storage.predictions import PredictionLog, PredictionRecord
from tests.app.storage.stores import Stores


def made(model_id: int, age: timedelta = timedelta(), content: bytes = b"input") -> PredictionRecord:
    at = datetime.now(UTC) - age
    milliseconds = int(at.timestamp() * 1000)
    value = milliseconds << 80 | uuid7().int & ((1 << 80) - 1)
    digits = f"{value:032x}"
    identity = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return PredictionRecord(identity, model_id, 1, "a", 0.9, [("a", 0.9)], content, at)


def test_a_prediction_is_found_with_its_input(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    record = made(model.id)
    log.write([record])
    log.write([record])
    row = log.get(model.id, record.id)
    assert (row.version, row.label, row.score, row.top) == (1, "a", 0.9, [{"label": "a", "score": 0.9}])
    assert log.content(model.id, record.id) == b"input"


def test_an_empty_input_is_kept_as_one(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    alone, first, last = (made(model.id, content=content) for content in (b"", b"", b"input"))
    log.write([alone])
    log.write([first, last])

    assert [log.content(model.id, one.id) for one in (alone, first, last)] == [b"", b"", b"input"]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers_are_kept_as_null_and_spoil_no_neighbour(stores: Stores, score: float) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    odd, good = made(model.id)._replace(score=score, top=[("a", score), ("b", 0.5)]), made(model.id)

    log.write([odd, good])

    row = log.get(model.id, odd.id)
    assert (row.label, row.score) == ("a", None)
    assert row.top == [{"label": "a", "score": None}, {"label": "b", "score": 0.5}]
    assert log.get(model.id, good.id).score == 0.9


def test_old_predictions_go_and_are_known_to_be_gone(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    old, new = made(model.id, timedelta(days=40)), made(model.id)
    log.write([old, new])
    assert log.prune(days=30, nbytes=1 << 30) == 1
    with pytest.raises(PredictionExpired):
        log.get(model.id, old.id)
    assert log.get(model.id, new.id).id == new.id


def test_beyond_the_bytes_the_oldest_go_first(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    records = [made(model.id, timedelta(hours=hours), b"x" * 1000) for hours in (5, 4, 3)]
    log.write(records)
    assert log.prune(days=30, nbytes=3000) == 1
    with pytest.raises(PredictionExpired):
        log.content(model.id, records[0].id)
    assert log.content(model.id, records[1].id) == b"x" * 1000


def test_an_id_that_never_was_is_unknown(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    for identity in (str(uuid7()), "not-a-uuid", "00000000-0000-4000-8000-000000000000"):
        with pytest.raises(UnknownPrediction):
            log.get(model.id, identity)


def test_a_prediction_of_another_model_is_unknown(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    record = made(model.id)
    log.write([record])
    with pytest.raises(UnknownPrediction):
        log.get(model.id + 1, record.id)


def test_a_record_that_another_process_is_about_to_write_is_waited_for(stores: Stores) -> None:
    model = stores.create().model
    patient, writer = PredictionLog(stores.database, patience_seconds=30), PredictionLog(stores.database)
    record = made(model.id)
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(patient.content, model.id, record.id)
        writer.write([record])
        assert looking.result(timeout=20) == b"input"


def test_an_id_that_is_old_enough_is_not_waited_for(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database, patience_seconds=30)
    with pytest.raises(UnknownPrediction):
        log.get(model.id, made(model.id, timedelta(seconds=40)).id)


@pytest.mark.timeout(20)
def test_an_id_of_the_future_is_not_waited_for(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database, patience_seconds=3600)
    with pytest.raises(UnknownPrediction):
        log.get(model.id, made(model.id, timedelta(seconds=-60)).id)
