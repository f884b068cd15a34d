import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.errors import Conflict, LeaseLost, NothingToRollBackTo, Pinned, UnknownVersion
from app.storage.moves import Moved
from app.storage.settling import Fate
from app.storage.states import Verdict
from tests.app.storage.stores import Stores, sample


def roll_back(stores: Stores, to: int | None = None, samples: Fate = Fate.QUARANTINE, *, pin: bool = False) -> Moved:
    return stores.steering.roll_back("digits", to=to, samples=samples, pin=pin, reason="it was bad", actor="ann")


def rounds(stores: Stores, count: int) -> list[str]:
    """Teach one sample a version; the samples' ids."""
    model = stores.create().model
    ids = []
    for number in range(count):
        ids += stores.post(model, sample(number))
        stores.learn(model)
    return ids


def test_a_rollback_goes_to_what_the_live_version_falls_back_to(stores: Stores) -> None:
    rounds(stores, 2)
    moved = roll_back(stores)
    assert (moved.previous.number, moved.live.number, moved.epoch) == (3, 2, 4)


def test_a_second_rollback_goes_further_back_never_forward(stores: Stores) -> None:
    rounds(stores, 3)
    assert roll_back(stores).live.number == 3
    assert roll_back(stores).live.number == 2
    assert roll_back(stores).live.number == 1
    with pytest.raises(NothingToRollBackTo):
        roll_back(stores)


def test_a_rollback_whose_answer_was_lost_is_not_done_twice(stores: Stores) -> None:
    rounds(stores, 3)
    lost = []

    def lose_the_answer(session: Session) -> None:
        if not lost:
            lost.append(session)
            raise OperationalError("COMMIT", None, Exception("locked"))

    event.listen(stores.database.sessions, "after_commit", lose_the_answer)
    moved = roll_back(stores)
    assert lost
    assert (moved.previous.number, moved.live.number, moved.epoch) == (4, 3, 5)
    assert moved.samples == {"quarantined": 1}
    assert stores.registry.live(moved.model.id).version.number == 3


@pytest.mark.parametrize(("fate", "state"), [("quarantine", "quarantined"), ("requeue", "queued"), ("keep", "learned")])
def test_samples_learned_only_after_the_target_meet_the_fate_that_was_asked_for(
    stores: Stores, fate: str, state: str
) -> None:
    ids = rounds(stores, 2)
    model = stores.registry.model("digits")
    moved = roll_back(stores, samples=Fate(fate))
    assert moved.samples == ({} if fate == "keep" else {state: 1})
    assert [stores.state(model, sample_id) for sample_id in ids] == ["learned", state]
    assert [stored.sample_id for stored in stores.line.memory(model, 10)] == [ids[0]]
    claim = stores.queue.claim(model.id, worker="w", lease_seconds=60, limit=10)
    assert (claim is not None) == (fate == "requeue")


def test_held_out_samples_share_the_fate(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1))
    claim = stores.claim(model)
    stores.queue.commit(claim, stores.outcome(claim, held_out=frozenset({claim.revisions[0].id})))
    assert len(stores.line.holdout(model)) == 1
    roll_back(stores)
    assert stores.state(model, sample_id) == "quarantined"
    assert stores.line.holdout(model) == []


def test_rolling_forward_restores_what_that_line_had_learned(stores: Stores) -> None:
    ids = rounds(stores, 2)
    model = stores.registry.model("digits")
    roll_back(stores, samples=Fate.REQUEUE)
    stores.steering.promote("digits", 3, force=False, reason="it was good after all", actor="ann")
    assert [stores.state(model, sample_id) for sample_id in ids] == ["learned", "learned"]
    assert stores.queue.claim(model.id, worker="w", lease_seconds=60, limit=10) is None


def test_a_requeued_sample_learned_anew_is_learned_once_in_each_line(stores: Stores) -> None:
    ids = rounds(stores, 2)
    model = stores.registry.model("digits")
    roll_back(stores, samples=Fate.REQUEUE)
    stores.learn(model)  # version 4, a child of 2
    assert stores.receipts.get(model, ids[1]).version == 4
    stores.steering.promote("digits", 3, force=False, reason="", actor="ann")
    assert stores.receipts.get(model, ids[1]).version == 3
    assert stores.state(model, ids[1]) == "learned"


def test_a_rollback_never_undoes_a_correction(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1, "a"))
    stores.learn(model)
    stores.intake.correct(model, sample_id, "b", "ann")
    stores.learn(model)
    roll_back(stores)
    receipt = stores.receipts.get(model, sample_id)
    assert (receipt.sample.state, receipt.label) == ("queued", "b")
    assert [(revision.action, revision.label_id) for revision in stores.claim(model).revisions] == [("replace", 2)]


def test_a_rollback_never_undoes_a_withdrawal(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1))
    stores.learn(model)
    stores.intake.withdraw(model, sample_id, "ann")
    stores.learn(model)
    roll_back(stores)
    assert stores.state(model, sample_id) == "withdrawn"
    assert stores.line.memory(model, 10) == []
    assert [revision.action for revision in stores.claim(model).revisions] == ["remove"]


def test_a_rollback_ends_the_running_update_and_its_worker_publishes_nothing(stores: Stores) -> None:
    rounds(stores, 1)
    model = stores.registry.model("digits")
    (waiting,) = stores.post(model, sample(50))
    claim = stores.claim(model)
    roll_back(stores)
    with pytest.raises(LeaseLost):
        stores.queue.commit(claim, stores.outcome(claim))
    assert stores.state(model, waiting) == "queued"
    assert stores.claim(model).parent.number == 1


def test_a_rollback_can_pin(stores: Stores) -> None:
    rounds(stores, 1)
    assert roll_back(stores, pin=True).model.pinned
    with pytest.raises(Pinned):
        stores.steering.promote("digits", 2, force=False, reason="", actor="ann")


def test_there_is_no_rolling_back_to_a_version_that_was_never_live(stores: Stores) -> None:
    rounds(stores, 1)
    model = stores.registry.model("digits")
    stores.post(model, sample(9))
    stores.learn(model, Verdict.REJECTED)
    with pytest.raises(Conflict, match="never live"):
        roll_back(stores, to=3)
    with pytest.raises(UnknownVersion):
        roll_back(stores, to=99)
    with pytest.raises(Conflict, match="live already"):
        roll_back(stores, to=2)


def test_a_rejected_version_is_promoted_only_by_force_and_then_its_samples_are_learned(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(9))
    stores.learn(model, Verdict.REJECTED)
    with pytest.raises(Conflict, match="gate did not promote"):
        stores.steering.promote("digits", 2, force=False, reason="", actor="ann")
    stores.steering.promote("digits", 2, force=True, reason="I looked at it", actor="ann")
    assert stores.state(model, sample_id) == "learned"
