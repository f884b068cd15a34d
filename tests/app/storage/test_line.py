import hashlib

from app.storage.line import fair_shares
from tests.app.storage.stores import Stores, sample


def test_the_memory_is_balanced_over_classes_and_stable(stores: Stores) -> None:
    model = stores.create().model
    stores.post(model, *[sample(n, "a") for n in range(40)], *[sample(100 + n, "b") for n in range(3)])
    stores.learn(model)
    memory = stores.line.memory(model, 10)
    assert sorted(stored.label_id for stored in memory) == [1] * 7 + [2] * 3
    stores.post(model, sample(999, "b"))
    stores.learn(model)
    again = {stored.sample_id for stored in stores.line.memory(model, 10)}
    assert len(again & {stored.sample_id for stored in memory}) >= 9, "one more sample moves at most one other"


def test_what_is_excluded_or_only_kept_is_not_rehearsed(stores: Stores) -> None:
    model = stores.create().model
    stores.post(model, sample(1), sample(2))
    stores.learn(model)
    first = hashlib.sha256(b"content 1").hexdigest()
    assert stores.remembered(model, exclude={first}) == [b"content 2"]
    assert stores.line.memory(model, 0) == []
    assert stores.line.learned_counts(model) == {1: 2}


def test_the_holdout_keeps_the_newest(stores: Stores) -> None:
    model = stores.create().model
    stores.post(model, *[sample(n) for n in range(5)])
    claim = stores.claim(model)
    everything = frozenset(revision.id for revision in claim.revisions)
    stores.queue.commit(claim, stores.outcome(claim, held_out=everything))
    newest = stores.line.contents([stored.sample_id for stored in stores.line.holdout(model, cap=2)])
    assert sorted(newest.values()) == [b"content 3", b"content 4"]
    assert stores.line.learned_counts(model) == {}


def test_shares_are_even_and_leftovers_go_to_the_larger_classes() -> None:
    assert fair_shares({1: 100, 2: 100, 3: 1}, 10) == {3: 1, 1: 4, 2: 5}
    assert fair_shares({1: 2, 2: 3}, 10) == {1: 2, 2: 3}
    assert fair_shares({}, 10) == {}


def test_scores_are_kept_with_the_version(stores: Stores) -> None:
    model = stores.create().model
    (sample_id,) = stores.post(model, sample(1))
    claim = stores.claim(model)
    outcome = stores.outcome(claim, held_out=frozenset({claim.revisions[0].id}))
    outcome.scores[outcome.version_id] = {sample_id: 2}
    outcome.scores[claim.parent.id] = {sample_id: None}
    stores.queue.commit(claim, outcome)
    assert stores.line.scores(outcome.version_id, [sample_id, "other"]) == {sample_id: 2}
    assert stores.line.scores(claim.parent.id, [sample_id]) == {sample_id: None}
