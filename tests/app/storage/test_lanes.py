"""Two lanes of one model: which update is due when, and how neither gets into the other's way."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from app.errors import LeaseLost, StaleParent
from app.storage.claims import Claim
from app.storage.settling import Fate
from app.storage.states import Lane, SampleState, UpdateKind
from app.storage.tables import Model, Update
from app.storage.triggers import Due
from tests.app.storage.stores import Stores, sample

RIDGE = {"head": {"kind": "ridge"}, "trainable": "all", "penalties": []}


def fast(stores: Stores, model: Model, worker: str = "w1") -> Claim | None:
    return stores.queue.claim(model.id, worker=worker, lease_seconds=60, limit=100, lane=Lane.FAST)


def begun(stores: Stores, model: Model, lease_seconds: float = 60) -> Claim:
    claim = stores.queue.begin(model.id, worker="w1", lease_seconds=lease_seconds)
    assert claim is not None
    return claim


def teach(stores: Stores, model: Model, *numbers: int) -> None:
    stores.post(model, *(sample(number) for number in numbers))
    claim = fast(stores, model)
    assert claim is not None
    stores.queue.commit(claim, stores.outcome(claim))


def refinement(model: Model) -> list[Due]:
    return [Due(model.id, Lane.SLOW, UpdateKind.REFINE)]


def ago(stores: Stores, **span: float) -> None:
    """Let every update have ended that long ago."""
    with stores.database.sessions.begin() as session:
        session.execute(update(Update).values(finished_at=datetime.now(UTC) - timedelta(**span)))


def test_a_single_label_is_due_in_the_fast_lane_at_once(stores: Stores) -> None:
    model = stores.create(**RIDGE, trigger={"samples": 100, "seconds": 1000}).model
    assert stores.queue.due() == []
    stores.post(model, sample(1))
    assert stores.queue.due() == [Due(model.id, Lane.FAST, UpdateKind.LEARN)]
    claim = fast(stores, model)
    assert claim is not None
    assert stores.queue.due() == []


def test_a_slow_update_is_due_after_so_many_samples(stores: Stores) -> None:
    model = stores.create(**RIDGE, schedule={"samples": 3}).model
    teach(stores, model, 1, 2)
    assert stores.queue.due() == []
    teach(stores, model, 3)
    assert stores.queue.due() == refinement(model)
    claim = begun(stores, model)
    assert stores.queue.due() == []
    stores.queue.commit(claim, stores.outcome(claim))
    assert stores.queue.due() == []
    teach(stores, model, 4, 5, 6)
    assert stores.queue.due() == refinement(model)


def test_a_slow_update_is_due_after_so_long(stores: Stores) -> None:
    model = stores.create(**RIDGE, schedule={"seconds": 3600}).model
    teach(stores, model, 1)
    claim = begun(stores, model)
    stores.queue.commit(claim, stores.outcome(claim))
    assert stores.queue.due() == []
    ago(stores, hours=2)
    assert stores.queue.due() == refinement(model)
    stores.steering.set_paused("digits", True, reason="", actor="ann")
    assert stores.queue.due() == []
    stores.steering.request_run("digits", reason="", actor="ann", slow=True)
    assert stores.queue.due() == refinement(model), "by hand it runs though learning is paused"
    begun(stores, model)
    assert stores.queue.due() == []


def test_nothing_learned_yet_is_nothing_to_learn_again(stores: Stores) -> None:
    model = stores.create(**RIDGE, schedule={"seconds": 1}).model
    stores.steering.request_run("digits", reason="", actor="ann", slow=True)
    assert stores.queue.due() == []
    teach(stores, model, 1)
    assert stores.queue.due() == refinement(model)


def test_a_slow_update_that_failed_waits_longer_each_time(stores: Stores) -> None:
    model = stores.create(**RIDGE, schedule={"samples": 1}).model
    teach(stores, model, 1)
    for waits in (30, 60, 120):
        stores.queue.fail(begun(stores, model).update_id, "it went wrong")
        ago(stores, seconds=waits - 10)
        assert stores.queue.due() == []
        ago(stores, seconds=waits + 10)
        assert stores.queue.due() == refinement(model)


def test_a_hold_keeps_every_worker_from_the_fast_lane_until_it_is_let_go(stores: Stores) -> None:
    model = stores.create(**RIDGE).model
    teach(stores, model, 1)
    slow = begun(stores, model)
    held = stores.queue.hold(slow, 60)
    assert held is not None
    stores.post(model, sample(2))
    assert stores.queue.due() == []
    assert fast(stores, model, "w2") is None
    stores.queue.release(held, "published")
    assert fast(stores, model, "w2") is not None
    assert stores.queue.hold(slow, 60) is None, "the fast lane works"


def test_a_hold_of_a_worker_that_died_lapses(stores: Stores) -> None:
    model = stores.create(**RIDGE).model
    teach(stores, model, 1)
    assert stores.queue.hold(begun(stores, model), -1) is not None
    stores.post(model, sample(2))
    assert fast(stores, model, "w2") is not None


def test_what_a_slow_version_overtook_goes_back_at_once_with_no_attempt_counted(stores: Stores) -> None:
    model = stores.create(**RIDGE).model
    teach(stores, model, 1)
    (posted,) = stores.post(model, sample(2))
    claim, slow = fast(stores, model), begun(stores, model)
    assert claim is not None
    stores.queue.commit(slow, stores.outcome(slow))
    with pytest.raises(StaleParent):
        stores.queue.commit(claim, stores.outcome(claim))
    stores.queue.release(claim.update_id, "overtaken")
    assert stores.state(model, posted) == SampleState.QUEUED
    again = fast(stores, model)
    assert again is not None
    assert again.parent.number == 3
    stores.queue.commit(again, stores.outcome(again))
    assert stores.state(model, posted) == SampleState.LEARNED


def test_a_slow_update_begun_by_hand_is_taken_up_again_after_the_worker_stopped(stores: Stores) -> None:
    model = stores.create(**RIDGE).model
    teach(stores, model, 1)
    stores.steering.request_run("digits", reason="", actor="ann", slow=True)
    stores.queue.release(begun(stores, model).update_id, "the worker was told to stop")
    assert stores.queue.due() == refinement(model)


def test_a_rollback_ends_both_lanes_and_the_hold(stores: Stores) -> None:
    model = stores.create(**RIDGE).model
    teach(stores, model, 1)
    teach(stores, model, 2)
    slow = begun(stores, model)
    held = stores.queue.hold(slow, 60)
    assert held is not None
    stores.steering.roll_back("digits", to=None, samples=Fate.REQUEUE, pin=False, reason="", actor="ann")
    with pytest.raises(LeaseLost):
        stores.queue.commit(slow, stores.outcome(slow))
    with pytest.raises(LeaseLost):
        stores.queue.heartbeat(held, 60)
    assert fast(stores, model) is not None


def test_the_line_says_what_live_was_taught_whatever_waits(stores: Stores) -> None:
    model = stores.create(**RIDGE, new_classes={"policy": "accept"}).model
    first, second, third = stores.post(model, sample(1), sample(2), sample(3))
    claim = fast(stores, model)
    assert claim is not None
    stores.queue.commit(claim, stores.outcome(claim))
    before = stores.line.learned(model)
    assert [one.sample_id for one in before] == [first, second, third]
    stores.intake.correct(model, first, "b", "ann")
    stores.intake.withdraw(model, second, "ann")
    assert stores.line.learned(model) == before
    claim = fast(stores, model)
    assert claim is not None
    stores.queue.commit(claim, stores.outcome(claim))
    after = stores.line.learned(model)
    assert [one.sample_id for one in after] == [first, third]
    assert after[0].label_id != before[0].label_id
