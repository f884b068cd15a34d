import threading

import pytest

from app.errors import Conflict, Overloaded, UnknownSample
from app.storage.intake import Accepted, Intake, Refused
from app.storage.killpoint import KillPoint
from app.storage.queue import SampleQueue
from app.storage.settling import Fate
from app.storage.states import Verdict
from tests.app.storage.stores import Stores, sample


def test_the_same_client_id_with_the_same_body_is_one_sample(stores: Stores) -> None:
    model = stores.create().model
    first = stores.intake.put(model, [sample(1, client_id="x")], "ann")[0]
    again = stores.intake.put(model, [sample(1, client_id="x"), sample(2, client_id="x")], "ann")
    assert isinstance(first, Accepted)
    assert again[0] == Accepted(first.id, "queued", duplicate=True)
    assert isinstance(again[1], Refused)
    assert again[1].code == "id_conflict"
    assert stores.receipts.depth(model.id).queued == 1


def test_one_client_id_twice_in_one_request_is_one_sample(stores: Stores) -> None:
    model = stores.create().model
    answers = stores.intake.put(model, [sample(1, client_id="x"), sample(1, client_id="x")], "ann")
    assert [getattr(answer, "duplicate", None) for answer in answers] == [False, True]


def test_byte_identical_samples_get_their_own_receipts_and_count_once(stores: Stores) -> None:
    model = stores.create().model
    ids = stores.post(model, sample(1), sample(1))
    stores.learn(model)
    ids += stores.post(model, sample(1))
    claim = stores.claim(model)
    assert [revision.known for revision in claim.revisions] == [True]
    assert claim.revisions[0].side == "learn"
    stores.queue.commit(claim, stores.outcome(claim))
    assert [stores.state(model, sample_id) for sample_id in ids] == ["learned"] * 3
    assert len(stores.line.memory(model, 10)) == 1


def test_another_label_by_the_same_source_is_a_correction(stores: Stores) -> None:
    model = stores.create().model
    (old,) = stores.post(model, sample(1, "a", source="ann"))
    stores.learn(model)
    (new,) = stores.post(model, sample(1, "b", source="ann"))
    assert stores.state(model, old) == "withdrawn"
    assert f"corrected by sample {new}" in (stores.receipts.get(model, old).sample.reason or "")
    stores.learn(model)
    assert [stored.label_id for stored in stores.line.memory(model, 10)] == [2]


def test_another_label_by_another_source_sends_both_to_review(stores: Stores) -> None:
    model = stores.create().model
    (old,) = stores.post(model, sample(1, "a", source="ann"))
    stores.learn(model)
    answer = stores.intake.put(model, [sample(1, "b", source="bob")], "bob")[0]
    assert isinstance(answer, Accepted)
    assert answer.state == "quarantined"
    receipt = stores.receipts.get(model, old)
    assert receipt.sample.state == "quarantined"
    assert "'bob' says 'b'" in (receipt.sample.reason or "")
    stores.learn(model)  # the older one is taken out of what was learned
    assert stores.line.memory(model, 10) == []
    assert stores.state(model, old) == "quarantined"


def test_a_contradiction_waits_for_the_commit_that_is_just_learning_the_other_sample(stores: Stores) -> None:
    model = stores.create().model
    (old,) = stores.post(model, sample(1, "a", source="ann"))
    claim = stores.claim(model)
    outcome = stores.outcome(claim)
    contradiction = threading.Thread(
        target=stores.intake.put, args=(model, [sample(1, "b", source="bob")], "bob"), daemon=True
    )

    class Meanwhile(KillPoint):
        def __call__(self, name: str) -> None:
            contradiction.start()
            contradiction.join(0.5)
            assert contradiction.is_alive()

    SampleQueue(stores.database, Meanwhile()).commit(claim, outcome)
    contradiction.join(30)
    assert stores.state(model, old) == "quarantined"
    assert [revision.action for revision in stores.claim(model).revisions] == ["remove"]


def test_a_quarantined_sample_that_is_corrected_is_learned_after_all(stores: Stores) -> None:
    model = stores.create().model
    (old,) = stores.post(model, sample(1, "a", source="ann"))
    stores.intake.put(model, [sample(1, "b", source="bob")], "bob")
    stores.intake.correct(model, old, "b", "ann")
    stores.learn(model)
    assert stores.state(model, old) == "learned"
    assert [stored.label_id for stored in stores.line.memory(model, 10)] == [2]


def test_a_correction_before_the_claim_replaces_the_label(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1, "a"))
    stores.intake.correct(model, sample_id, "b", "ann")
    claim = stores.claim(model)
    assert [(revision.action, revision.label_id) for revision in claim.revisions] == [("add", 2)]


def test_a_correction_during_the_claim_waits_its_turn(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1, "a"))
    claim = stores.claim(model)
    stores.intake.correct(model, sample_id, "b", "ann")
    stores.queue.commit(claim, stores.outcome(claim))
    assert stores.state(model, sample_id) == "queued"
    second = stores.claim(model)
    assert [(revision.action, revision.label_id) for revision in second.revisions] == [("replace", 2)]
    stores.queue.commit(second, stores.outcome(second))
    receipt = stores.receipts.get(model, sample_id)
    assert (receipt.sample.state, receipt.label, receipt.version) == ("learned", "b", 3)
    assert [step.what for step in receipt.history] == ["labelled 'a'", "corrected 'b'", "learned", "learned"]


def test_a_correction_of_a_held_out_sample_keeps_the_side_and_is_scored_anew(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1, "a"))
    claim = stores.claim(model)
    stores.queue.commit(claim, stores.outcome(claim, held_out=frozenset({claim.revisions[0].id})))
    stores.intake.correct(model, sample_id, "b", "ann")
    assert stores.state(model, sample_id) == "held_out"
    assert [stored.label_id for stored in stores.line.holdout(model)] == [2]
    assert stores.receipts.depth(model.id).queued == 0


def test_a_sample_withdrawn_before_the_claim_is_never_claimed(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1))
    stores.intake.withdraw(model, sample_id, "ann")
    assert stores.queue.claim(model.id, worker="w", lease_seconds=60, limit=10) is None
    with pytest.raises(Conflict):
        stores.intake.correct(model, sample_id, "b", "ann")


def test_a_learned_sample_that_is_withdrawn_leaves_memory_at_once_and_is_erased_when_unlearned(stores: Stores) -> None:
    model = stores.create().model
    (sample_id, _) = stores.post(model, sample(1), sample(2))
    stores.learn(model)
    stores.intake.withdraw(model, sample_id, "ann")
    assert stores.remembered(model) == [b"content 2"]
    claim = stores.claim(model)
    assert [revision.action for revision in claim.revisions] == ["remove"]
    assert stores.claimed(claim) == [b"content 1"]
    stores.queue.commit(claim, stores.outcome(claim))
    assert stores.state(model, sample_id) == "withdrawn"
    stores.steering.roll_back("digits", to=1, samples=Fate.REQUEUE, pin=False, reason="", actor="ann")
    claim = stores.claim(model)
    assert stores.claimed(claim) == [b"content 2"]


def test_a_withdrawal_during_the_claim_takes_the_sample_out_in_the_next(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1))
    claim = stores.claim(model)
    stores.intake.withdraw(model, sample_id, "ann")
    stores.queue.commit(claim, stores.outcome(claim))
    assert stores.line.memory(model, 10) == []
    assert [revision.action for revision in stores.claim(model).revisions] == ["remove"]


def test_no_verdict_stops_a_withdrawal(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1))
    stores.learn(model)
    stores.intake.withdraw(model, sample_id, "ann")
    stores.learn(model, Verdict.REJECTED)
    assert [revision.action for revision in stores.claim(model).revisions] == ["remove"]


def test_a_proposed_label_waits_until_enough_samples_of_it_came(stores: Stores) -> None:
    model = stores.create(new_classes={"policy": "propose", "after": 3}).model
    first = stores.intake.put(model, [sample(1, "aa"), sample(2, "aa")], "ann")
    assert isinstance(first[0], Accepted)
    assert first[0].note == "waits for 1 more of the new label 'aa'; did you mean 'a'?"
    assert stores.queue.claim(model.id, worker="w", lease_seconds=60, limit=10) is None
    third = stores.intake.put(model, [sample(3, "aa")], "ann")[0]
    assert isinstance(third, Accepted)
    assert third.note is None
    assert len(stores.claim(model).revisions) == 3
    assert [(label.id, label.state) for label in stores.registry.labels(model.id)][-1] == (3, "active")


def test_a_refused_label_names_the_nearest_and_sinks_no_other_item(stores: Stores) -> None:
    model = stores.create(new_classes={"policy": "refuse"}).model
    answers = stores.intake.put(model, [sample(1, "A?"), sample(2, "b")], "ann")
    assert isinstance(answers[0], Refused)
    assert answers[0].code == "unknown_label"
    assert isinstance(answers[1], Accepted)


def test_a_full_queue_says_when_to_come_back(stores: Stores) -> None:
    model = stores.create().model
    small = Intake(stores.database, queue_limit=2)
    small.put(model, [sample(1), sample(2)], "ann")
    with pytest.raises(Overloaded) as refusal:
        small.put(model, [sample(3)], "ann")
    assert refusal.value.retry_after_seconds >= 1
    assert stores.receipts.depth(model.id).queued == 2


def test_samples_of_another_model_are_not_found(stores: Stores) -> None:
    model = stores.create().model
    with pytest.raises(UnknownSample):
        stores.receipts.get(model, "01900000-0000-7000-8000-000000000000")


def test_receipts_are_filtered_and_paged(stores: Stores) -> None:
    model = stores.create().model
    ids = stores.post(model, *[sample(n, "ab"[n % 2], source="ann" if n < 3 else "bob") for n in range(6)])
    stores.learn(model)
    page = stores.receipts.list(model, limit=4)
    assert [receipt.sample.id for receipt in page] == ids[::-1][:4]
    rest = stores.receipts.list(model, before=page[-1].sample.id, limit=4)
    assert [receipt.sample.id for receipt in rest] == ids[::-1][4:]
    assert len(stores.receipts.list(model, label="b")) == 3
    assert len(stores.receipts.list(model, source="ann", state="learned")) == 3
    assert len(stores.receipts.list(model, version=2)) == 6
    assert stores.receipts.list(model, version=1) == []
