"""Models on one backbone: they join, their slow updates begin, end and publish together, or not at all."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from app.errors import Conflict, LeaseLost, StaleParent
from app.recipe import FeaturesInput, NetworkChoice, NewModel, Recipe
from app.storage.claims import Claim
from app.storage.retention import Retention
from app.storage.settling import Fate
from app.storage.states import ArtifactKind, FileState, Lane, UpdateKind, UpdateState, Verdict
from app.storage.tables import Model, Update, Version
from app.storage.triggers import Due
from tests.app.storage.stores import Stores, sample

SOLVED = {"head": {"kind": "ridge"}, "schedule": {"samples": 4}}


def member(stores: Stores, name: str, **recipe: object) -> Model:
    new = NewModel(
        name=name,
        input=FeaturesInput(size=4),
        network=NetworkChoice(architecture="mlp"),
        labels=("a", "b"),
        recipe=Recipe.model_validate({**SOLVED, **recipe}),
        family="shapes",
    )
    return stores.registry.create(new, "tester").model


def taught(stores: Stores, model: Model, *numbers: int) -> Version:
    stores.post(model, *(sample(number) for number in numbers))
    claim = stores.queue.claim(model.id, worker="w1", lease_seconds=60, limit=10, lane=Lane.FAST)
    assert claim is not None
    return stores.queue.commit(claim, stores.outcome(claim))


def begun(stores: Stores, model: Model, lease_seconds: float = 60) -> Claim:
    claim = stores.queue.begin(model.id, worker="w1", lease_seconds=lease_seconds)
    assert claim is not None
    return claim


def refine(model: Model) -> Due:
    return Due(model.id, Lane.SLOW, UpdateKind.REFINE)


def states(stores: Stores, claim: Claim) -> list[str]:
    with stores.database.sessions() as session:
        found = dict(session.execute(select(Update.id, Update.state).where(Update.id.in_(claim.update_ids))).all())
    return [found[update_id] for update_id in claim.update_ids]


def test_a_slow_update_of_one_is_one_of_all_and_keeps_the_others_from_theirs(stores: Stores) -> None:
    one, two = member(stores, "one"), member(stores, "two")
    alone = stores.create().model
    taught(stores, one, 1)
    claim = begun(stores, two)
    assert claim.model.id == two.id
    assert [relative.model.id for relative in claim.relatives] == [one.id]
    assert claim.relatives[0].parent.number == 2
    assert stores.queue.begin(one.id, worker="w2", lease_seconds=60) is None
    assert begun(stores, alone).relatives == ()
    assert states(stores, claim) == [UpdateState.RUNNING] * 2


def test_the_schedule_counts_what_the_whole_family_learned(stores: Stores) -> None:
    one, two = member(stores, "one"), member(stores, "two", schedule={"samples": None})
    taught(stores, one, 1, 2)
    assert stores.queue.due() == []
    taught(stores, two, 3, 4)
    assert stores.queue.due() == [refine(one)]
    begun(stores, one)
    stores.steering.request_run("two", reason="", actor="ann", slow=True)
    assert stores.queue.due() == []


@pytest.mark.parametrize("name", ["one", "two"])
def test_nobody_s_backbone_moves_while_one_of_the_family_is_pinned_or_paused(stores: Stores, name: str) -> None:
    one = member(stores, "one")
    member(stores, "two", schedule={"samples": None})
    taught(stores, one, 1, 2, 3, 4)
    assert stores.queue.due() == [refine(one)]
    stores.steering.set_paused(name, value=True, reason="", actor="ann")
    assert stores.queue.due() == []
    stores.steering.set_paused(name, value=False, reason="", actor="ann")
    stores.steering.set_pinned(name, value=True, reason="", actor="ann")
    assert stores.queue.due() == []
    assert stores.queue.begin(one.id, worker="w1", lease_seconds=60) is None


def test_all_are_published_in_one_step_the_others_as_deltas_of_the_first(stores: Stores) -> None:
    one, two = member(stores, "one"), member(stores, "two")
    claim = begun(stores, two)
    first = stores.outcome(claim)
    second = replace(stores.outcome(claim.relatives[0]), base_id=first.version_id)
    made = [(claim, first), (claim.relatives[0], second)]
    versions = stores.queue.commit_all(made)
    assert [stores.registry.live(model.id).version.id for model in (two, one)] == [v.id for v in versions]
    assert versions[1].base_id == versions[0].id
    assert [version.id for version in stores.queue.commit_all(made)] == [version.id for version in versions]
    assert stores.registry.live(one.id).epoch == 2
    assert states(stores, claim) == [UpdateState.COMMITTED] * 2


@pytest.mark.parametrize("overtaken", [0, 1])
def test_none_is_published_when_one_line_moved(stores: Stores, overtaken: int) -> None:
    one, two = member(stores, "one"), member(stores, "two")
    claim = begun(stores, one)
    made = [(part, stores.outcome(part)) for part in (claim, *claim.relatives)]
    taught(stores, (one, two)[overtaken], 1)
    with pytest.raises(StaleParent):
        stores.queue.commit_all(made)
    numbers = [stores.registry.live(model.id).version.number for model in (one, two)]
    assert sorted(numbers) == [1, 2]
    assert numbers[overtaken] == 2
    assert states(stores, claim) == [UpdateState.RUNNING] * 2


def test_none_is_published_when_one_was_pinned_meanwhile(stores: Stores) -> None:
    one, two = member(stores, "one"), member(stores, "two")
    claim = begun(stores, one)
    stores.steering.set_pinned("two", value=True, reason="", actor="ann")
    with pytest.raises(LeaseLost):
        stores.queue.commit_all([(part, stores.outcome(part)) for part in (claim, *claim.relatives)])
    assert [stores.registry.live(model.id).version.number for model in (one, two)] == [1, 1]
    for update_id in claim.update_ids:
        stores.queue.release(update_id, "overtaken")
    assert states(stores, claim) == [UpdateState.CANCELLED] * 2


def test_whoever_joins_meanwhile_is_not_left_behind(stores: Stores) -> None:
    one = member(stores, "one")
    claim = begun(stores, one)
    member(stores, "late")
    with pytest.raises(Conflict, match="'late' joined the family"):
        stores.queue.commit_all([(claim, stores.outcome(claim))])
    refused = stores.outcome(claim, Verdict.REJECTED)
    assert stores.queue.commit_all([(claim, refused)])[0].verdict == Verdict.REJECTED


def test_one_who_comes_later_starts_on_the_backbone_that_is_live_and_keeps_its_file(stores: Stores) -> None:
    one = member(stores, "one")
    claim = begun(stores, one)
    full = stores.queue.commit_all([(claim, stores.outcome(claim))])[0]
    late = stores.registry.live(member(stores, "late").id).version
    assert (late.base_id, late.files) == (full.id, FileState.NONE)
    for _ in range(2):
        claim = begun(stores, one)
        stores.queue.commit_all([(part, stores.outcome(part, Verdict.REJECTED)) for part in (claim, *claim.relatives)])
    _age(stores)
    Retention(stores.database, stores.weights).collect()
    kept = stores.registry.version_by_id(full.id)
    assert kept.files == FileState.PRESENT
    assert stores.weights.read(full.id, stores.registry.artifacts(full.id)[ArtifactKind.WEIGHTS])
    assert stores.registry.version_by_id(late.id).files == FileState.NONE


def test_a_seed_changed_since_does_not_keep_others_from_joining(stores: Stores) -> None:
    one = member(stores, "one")
    stores.registry.change_recipe("one", Recipe.model_validate({**SOLVED, "seed": 5}), "ann")
    two = member(stores, "two")
    assert two.family_id == one.family_id
    with pytest.raises(Conflict, match=r"recipe\.seed"):
        member(stores, "three", seed=5)


def test_one_may_be_rolled_back_alone_which_ends_its_part_of_a_running_update(stores: Stores) -> None:
    one, two = member(stores, "one"), member(stores, "two")
    claim = begun(stores, one)
    first = stores.outcome(claim)
    second = replace(stores.outcome(claim.relatives[0]), base_id=first.version_id)
    stores.queue.commit_all([(claim, first), (claim.relatives[0], second)])
    running = begun(stores, one)
    stores.steering.roll_back("two", to=None, samples=Fate.KEEP, pin=False, reason="", actor="ann")
    assert states(stores, running) == [UpdateState.RUNNING, UpdateState.CANCELLED]
    assert [stores.registry.live(model.id).version.number for model in (one, two)] == [2, 1]


def _age(stores: Stores) -> None:
    with stores.database.sessions.begin() as session:
        for version in session.scalars(select(Version)):
            session.execute(
                update(Version)
                .where(Version.id == version.id)
                .values(created_at=version.created_at - timedelta(days=3))
            )
