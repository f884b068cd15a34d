from datetime import timedelta

import pytest
from sqlalchemy import select, update

from app.errors import LeaseLost
from app.storage.states import Lane, UpdateKind, Verdict
from app.storage.tables import Revision, Update
from app.storage.triggers import Due
from tests.app.storage.stores import Stores, sample


def test_only_one_update_runs_per_model(stores: Stores) -> None:
    model = stores.create().model
    stores.post(model, sample(1))
    stores.claim(model)
    stores.post(model, sample(2))
    assert stores.queue.claim(model.id, worker="w2", lease_seconds=60, limit=10) is None


def test_a_lapsed_lease_makes_the_samples_claimable_again_and_fences_the_old_worker(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1))
    old = stores.claim(model, lease_seconds=-1, worker="old")
    new = stores.claim(model, worker="new")
    assert [revision.id for revision in new.revisions] == [revision.id for revision in old.revisions]
    with pytest.raises(LeaseLost):
        stores.queue.commit(old, stores.outcome(old))
    with pytest.raises(LeaseLost):
        stores.queue.heartbeat(old.update_id, 60)
    stores.queue.commit(new, stores.outcome(new))
    assert stores.state(model, sample_id) == "learned"
    assert [version.number for version in stores.registry.versions(model.id, None, 10)] == [2, 1]


def test_a_lapsed_lease_that_nobody_took_over_may_still_commit(stores: Stores) -> None:
    model = stores.create().model
    stores.post(model, sample(1))
    claim = stores.claim(model, lease_seconds=-1)
    assert stores.queue.commit(claim, stores.outcome(claim)).number == 2


def test_a_heartbeat_keeps_the_lease(stores: Stores) -> None:
    model = stores.create().model
    stores.post(model, sample(1))
    claim = stores.claim(model, lease_seconds=-1)
    stores.queue.heartbeat(claim.update_id, 60)
    assert stores.queue.expire() == 0


def test_a_commit_whose_answer_was_lost_can_be_repeated(stores: Stores) -> None:
    model = stores.create().model
    stores.post(model, sample(1))
    claim = stores.claim(model)
    outcome = stores.outcome(claim)
    first = stores.queue.commit(claim, outcome)
    assert stores.queue.commit(claim, outcome).id == first.id
    assert stores.registry.live(model.id).epoch == 2


def test_a_failed_update_gives_its_samples_back_and_after_five_times_sets_them_aside(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1))
    for _ in range(5):
        with stores.database.sessions.begin() as session:
            session.execute(update(Revision).values(not_before=None))
        claim = stores.claim(model)
        stores.queue.fail(claim.update_id, "out of disk")
    receipt = stores.receipts.get(model, sample_id)
    assert receipt.sample.state == "quarantined"
    assert "out of disk" in (receipt.sample.reason or "")


def test_retries_are_spread_out_but_the_first_is_at_once(stores: Stores) -> None:
    model = stores.create().model
    stores.post(model, sample(1))
    stores.queue.fail(stores.claim(model).update_id, "first")
    stores.queue.fail(stores.claim(model).update_id, "second")
    assert stores.queue.claim(model.id, worker="w", lease_seconds=60, limit=10) is None
    with stores.database.sessions() as session:
        revision = session.scalars(select(Revision)).one()
        begun = session.scalars(select(Update).order_by(Update.id.desc())).first()
    assert begun is not None
    assert revision.not_before is not None
    assert begun.finished_at is not None
    assert revision.not_before - begun.finished_at == timedelta(seconds=5)


def test_what_crashed_before_is_claimed_apart_and_in_halves(stores: Stores) -> None:
    model = stores.create().model
    stores.post(model, *[sample(n) for n in range(8)])
    first = stores.queue.claim(model.id, worker="w", lease_seconds=60, limit=8)
    assert first is not None
    stores.queue.fail(first.update_id, "crash")
    stores.post(model, sample(100))
    fresh = stores.queue.claim(model.id, worker="w", lease_seconds=60, limit=8)
    assert fresh is not None
    assert stores.claimed(fresh) == [b"content 100"]
    stores.queue.commit(fresh, stores.outcome(fresh))
    retried = stores.queue.claim(model.id, worker="w", lease_seconds=60, limit=8)
    assert retried is not None
    assert len(retried.revisions) == 4


def test_a_released_update_counts_no_attempt(stores: Stores) -> None:
    model = stores.create().model
    stores.post(model, sample(1))
    stores.queue.release(stores.claim(model).update_id, "the worker stops")
    with stores.database.sessions() as session:
        assert session.scalars(select(Revision.attempts)).one() == 0
    stores.claim(model)


def test_a_rejected_batch_is_set_aside_with_the_reason_and_nothing_goes_live(stores: Stores) -> None:
    live = stores.create()
    (sample_id,) = stores.post(live.model, sample(1))
    version = stores.learn(live.model, Verdict.REJECTED)
    assert version.number == 2
    assert stores.registry.live(live.model.id).version.id == live.version.id
    receipt = stores.receipts.get(live.model, sample_id)
    assert receipt.sample.state == "quarantined"
    assert receipt.sample.reason == "refused with version 2: because"


def test_an_inconclusive_batch_waits_for_more_and_is_set_aside_after_three_judgements(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1))
    stores.learn(model, Verdict.INCONCLUSIVE)
    waiting = stores.receipts.get(model, sample_id).sample
    assert (waiting.state, waiting.reason) == (
        "queued",
        "waits to be judged with more: version 2 was inconclusive, because",
    )
    stores.learn(model, Verdict.INCONCLUSIVE)
    stores.learn(model, Verdict.INCONCLUSIVE)
    receipt = stores.receipts.get(model, sample_id)
    assert receipt.sample.state == "quarantined"
    assert "no evidence" in (receipt.sample.reason or "")


def test_a_withdrawal_goes_on_by_itself_after_an_inconclusive_batch(stores: Stores) -> None:
    model = stores.create(trigger={"samples": 100, "seconds": 0}).model
    (withdrawn,) = stores.post(model, sample(1))
    stores.learn(model)
    stores.intake.withdraw(model, withdrawn, "ann")
    (waiting,) = stores.post(model, sample(2))
    assert len(stores.claim(model).revisions) == 2
    stores.queue.release(2, "again")
    stores.learn(model, Verdict.INCONCLUSIVE)
    assert stores.queue.due() == [Due(model.id, Lane.SLOW, UpdateKind.LEARN)]
    claim = stores.claim(model)
    assert [revision.action for revision in claim.revisions] == ["remove"]
    stores.queue.commit(claim, stores.outcome(claim))
    assert stores.state(model, waiting) == "queued"
    assert stores.queue.due() == []


def test_the_trigger_counts_only_what_was_not_judged_yet(stores: Stores) -> None:
    model = stores.create(trigger={"samples": 2, "seconds": 3600}).model
    stores.post(model, sample(1))
    assert stores.queue.due() == []
    stores.post(model, sample(2))
    assert stores.queue.due() == [Due(model.id, Lane.SLOW, UpdateKind.LEARN)]
    stores.learn(model, Verdict.INCONCLUSIVE)
    assert stores.queue.due() == []
    stores.post(model, sample(3), sample(4))
    assert stores.queue.due() == [Due(model.id, Lane.SLOW, UpdateKind.LEARN)]
    assert len(stores.claim(model).revisions) == 4


def test_the_trigger_fires_when_the_oldest_has_waited(stores: Stores) -> None:
    model = stores.create(trigger={"samples": 100, "seconds": 0}).model
    assert stores.queue.due() == []
    stores.post(model, sample(1))
    assert stores.queue.due() == [Due(model.id, Lane.SLOW, UpdateKind.LEARN)]


def test_a_paused_model_learns_only_when_told_to(stores: Stores) -> None:
    model = stores.create(trigger={"samples": 1}).model
    stores.post(model, sample(1))
    stores.steering.set_paused("digits", True, reason="", actor="ann")
    assert stores.queue.due() == []
    stores.steering.request_run("digits", reason="", actor="ann")
    assert stores.queue.due() == [Due(model.id, Lane.SLOW, UpdateKind.LEARN)]
    stores.learn(model)
    assert stores.queue.due() == []


def test_a_pinned_model_is_not_claimed_and_its_running_update_publishes_nothing(stores: Stores) -> None:
    model = stores.create(trigger={"samples": 1}).model
    (sample_id,) = stores.post(model, sample(1))
    claim = stores.claim(model)
    stores.steering.set_pinned("digits", True, reason="", actor="ann")
    with pytest.raises(LeaseLost):
        stores.queue.commit(claim, stores.outcome(claim))
    assert stores.state(model, sample_id) == "queued"
    assert stores.queue.due() == []
    assert stores.queue.claim(model.id, worker="w", lease_seconds=60, limit=10) is None


def test_a_content_that_any_version_was_trained_on_judges_none(stores: Stores) -> None:
    model = stores.create().model
    stores.post(model, sample(1))
    stores.learn(model, Verdict.REJECTED)
    stores.post(model, sample(1))
    claim = stores.claim(model)
    stores.queue.commit(claim, stores.outcome(claim, held_out=frozenset({claim.revisions[0].id})))
    stores.steering.promote("digits", 2, force=True, reason="it was good", actor="ann")
    stores.post(model, sample(1))
    assert [revision.side for revision in stores.claim(model).revisions] == ["learn"]


def test_a_model_with_a_running_update_is_not_due(stores: Stores) -> None:
    model = stores.create(trigger={"samples": 1}).model
    stores.post(model, sample(1))
    stores.claim(model)
    stores.post(model, sample(2))
    assert stores.queue.due() == []
