from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from uuid_utils import uuid7

from app.errors import PredictionExpired, UnknownPrediction
from app.storage.predictions import Encoded, PredictionLog, PredictionRecord
from tests.app.storage.stores import Stores


def made(model_id: int, age: timedelta = timedelta(), content: bytes = b"input") -> PredictionRecord:
    at = datetime.now(UTC) - age
    milliseconds = int(at.timestamp() * 1000)
    value = milliseconds << 80 | uuid7().int & ((1 << 80) - 1)
    digits = f"{value:032x}"
    identity = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return PredictionRecord(identity, model_id, 1, "a", 0.9, [("a", 0.9)], content, at)


def keep(log: PredictionLog, records: Sequence[PredictionRecord]) -> None:
    log.write([Encoded.of(record) for record in records])


def test_a_prediction_is_found_with_its_input(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    record = made(model.id)
    keep(log, [record])
    keep(log, [record])
    assert log.get(model.id, record.id) == record._replace(created_at=found_at(record))


def found_at(record: PredictionRecord) -> datetime:
    """To the millisecond."""
    return datetime.fromtimestamp(round(record.created_at.timestamp() * 1000) / 1000, UTC)


def test_many_of_all_sizes_are_found_each_with_its_own_input(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    sizes = [0, 1, 7, 300_000, 0, 5, *range(200), 200_000, 100_000]
    records = [made(model.id, content=bytes([number % 256]) * size) for number, size in enumerate(sizes)]

    keep(log, records[::-1])

    for record in records:
        assert log.get(model.id, record.id).content == record.content


def test_a_group_may_hold_what_was_predicted_long_apart(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    ages = (3600, 60, 12, 9, 2, 0)
    records = [made(model.id, timedelta(seconds=age), f"{age}".encode()) for age in ages]

    keep(log, records)

    assert [log.get(model.id, one.id).content for one in records] == [f"{age}".encode() for age in ages]


def test_groups_of_two_servers_at_the_same_time_are_told_apart(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    records = [made(model.id, content=f"{number}".encode()) for number in range(100)]

    keep(log, records[::2])
    keep(log, records[1::2])

    assert [log.get(model.id, one.id).content for one in records] == [one.content for one in records]


def test_an_empty_input_is_kept_as_one(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    alone, first, last = (made(model.id, content=content) for content in (b"", b"", b"input"))
    keep(log, [alone])
    keep(log, [first, last])

    assert [log.get(model.id, one.id).content for one in (alone, first, last)] == [b"", b"", b"input"]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_no_numbers_are_kept_as_null_and_spoil_no_neighbour(stores: Stores, score: float) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    odd, good = made(model.id)._replace(score=score, top=[("a", score), ("b", 0.5)]), made(model.id)

    keep(log, [odd, good])

    found = log.get(model.id, odd.id)
    assert (found.label, found.score, found.top) == ("a", None, [("a", None), ("b", 0.5)])
    assert log.get(model.id, good.id).score == 0.9


def test_old_predictions_go_and_are_known_to_be_gone(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    old, new = made(model.id, timedelta(days=40)), made(model.id)
    keep(log, [old, new])
    assert log.prune(days=30, nbytes=1 << 30) == 1
    with pytest.raises(PredictionExpired):
        log.get(model.id, old.id)
    assert log.get(model.id, new.id).id == new.id


def test_beyond_the_bytes_the_oldest_go_first(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    records = [made(model.id, timedelta(hours=hours), b"x" * 1000) for hours in (5, 4, 3)]
    keep(log, records)
    assert log.prune(days=30, nbytes=3000) == 1
    with pytest.raises(PredictionExpired):
        log.get(model.id, records[0].id)
    assert log.get(model.id, records[1].id).content == b"x" * 1000


def test_all_that_is_too_old_goes_however_much_it_is(stores: Stores) -> None:
    model = stores.create().model
    log = PredictionLog(stores.database)
    old = [made(model.id, timedelta(days=40, seconds=20 * number)) for number in range(150)]
    keep(log, [*old, made(model.id)])

    assert log.prune(days=30, nbytes=1 << 30) == 150
    assert log.prune(days=30, nbytes=1 << 30) == 0


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
    keep(log, [record])
    with pytest.raises(UnknownPrediction):
        log.get(model.id + 1, record.id)


def test_a_record_that_another_process_is_about_to_write_is_waited_for(stores: Stores) -> None:
    model = stores.create().model
    patient, writer = PredictionLog(stores.database, patience_seconds=30), PredictionLog(stores.database)
    record = made(model.id)
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(patient.get, model.id, record.id)
        keep(writer, [record])
        assert looking.result(timeout=20).content == b"input"


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
