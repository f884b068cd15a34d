"""Two models on one backbone: which digit it is, and whether it is even."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from app.errors import Conflict, LeaseLost, NothingLearned, StaleParent
from app.networks.features import features_content
from app.recipe import FeaturesInput, NetworkChoice, NewModel, Recipe
from app.storage.claims import Claim
from app.storage.intake import NewSample
from app.storage.settling import Fate
from app.storage.states import FileState, Lane, Verdict
from app.storage.tables import Model, Update, Version
from tests.worker.school import SECRET, Countdown, School
from worker.loop import GiveWay, Loop, Pace

SOLVED = {
    "head": {"kind": "ridge"},
    "new_classes": {"policy": "accept"},
    "optimizer": {"kind": "sgd", "lr": 0.02},
    "early_stopping": {"passes": 6},
    "holdout": 0.2,
}


def member(school: School, name: str, **recipe: object) -> Model:
    new = NewModel(
        name=name,
        input=FeaturesInput(size=64),
        network=NetworkChoice(architecture="mlp"),
        recipe=Recipe.model_validate({**SOLVED, **recipe}),
        family="figures",
    )
    model = school.registry.create(new, "tester").model
    with school.database.sessions.begin() as session:
        session.merge(model).holdout_key = SECRET
    return school.registry.model(name)


def label_of(model: Model, digit: int) -> str:
    return ("odd" if digit % 2 else "even") if model.name == "parity" else str(digit % 10)


def post(school: School, model: Model, indices: Sequence[int], shift: Sequence[int] | None = None) -> None:
    """Post digits with their labels, or with labels moved by some."""
    items = [
        NewSample(
            features_content(school.digits.pictures[index].tolist()),
            label_of(model, school.digits.labels[index] + (shift[index] if shift else 0)),
            None,
            "school",
            None,
            None,
        )
        for index in indices
    ]
    school.intake.put(model, items, "tester")


def fast(school: School, model: Model, indices: Sequence[int], shift: Sequence[int] | None = None) -> Version:
    """Post digits and have the fast lane learn them."""
    post(school, model, indices, shift)
    claim = school.queue.claim(model.id, worker="w1", lease_seconds=60, limit=4096, lane=Lane.FAST)
    assert claim is not None
    school.updater().perform(claim)
    return school.newest(model)


def states(school: School, claim: Claim) -> set[str]:
    with school.database.sessions() as session:
        return {session.get_one(Update, update_id).state for update_id in claim.update_ids}


def slow_claim(school: School, model: Model) -> Claim:
    claim = school.queue.begin(model.id, worker="w1", lease_seconds=60)
    assert claim is not None
    return claim


def slow(school: School, model: Model) -> Version:
    school.updater().perform(slow_claim(school, model))
    return school.newest(model)


def held_out_accuracy(school: School, model: Model) -> float:
    accuracy: float = school.live(model).metrics["accuracy"]
    return accuracy


def weight_file(school: School, version: Version) -> Path:
    (found,) = school.weights_folder.rglob(f"{version.id}.safetensors")
    return found


@pytest.fixture
def family(school: School) -> tuple[Model, Model]:
    """Both taught by the fast lane alone."""
    digits, parity = member(school, "digits"), member(school, "parity", trainable="head", penalties=[])
    fast(school, digits, range(600))
    fast(school, parity, range(300, 900))
    return digits, parity


def test_the_fast_lane_of_one_leaves_the_backbone_of_all_where_it_is(
    school: School, family: tuple[Model, Model]
) -> None:
    digests = {school.loader.backbone_of(school.live(model))[1] for model in family}
    assert len(digests) == 1
    assert [school.live(model).number for model in family] == [2, 2]


def test_a_slow_update_publishes_one_backbone_for_both_and_both_gain(
    school: School, family: tuple[Model, Model]
) -> None:
    digits = family[0]
    before = [held_out_accuracy(school, model) for model in family]
    leader = slow(school, digits)
    lives = [school.live(model) for model in family]
    assert lives[0].id == leader.id
    assert [live.verdict for live in lives] == [Verdict.PROMOTED] * 2, [live.reason for live in lives]
    assert [live.number for live in lives] == [3, 3]
    assert (lives[0].base_id, lives[1].base_id) == (None, leader.id)
    assert weight_file(school, lives[1]).stat().st_size < weight_file(school, leader).stat().st_size / 10
    networks = [school.loader.load(live) for live in lives]
    assert networks[0].backbone is networks[1].backbone
    after = [held_out_accuracy(school, model) for model in family]
    assert after[1] > before[1], (before, after)
    assert after[0] >= before[0] - 0.02, (before, after)
    state = school.loader.learner_state(leader)
    assert state is not None
    assert any("backbone" in name for name in state)
    assert lives[1].metrics["learning"] == lives[0].metrics["learning"]


def test_the_fast_lane_goes_on_from_what_the_family_published(school: School, family: tuple[Model, Model]) -> None:
    digits, parity = family
    leader = slow(school, digits)
    version = fast(school, parity, range(900, 1000))
    assert (version.verdict, version.base_id) == (Verdict.PROMOTED, leader.id)
    again = slow(school, digits)
    assert again.number == leader.number + 1
    assert {school.live(model).base_id for model in family} == {None, again.id} or again.verdict != Verdict.PROMOTED


def test_one_member_that_refuses_keeps_all_as_they_were(school: School) -> None:
    careless = {
        "penalties": [{"kind": "lwf", "strength": 0}],
        "optimizer": {"kind": "sgd", "lr": 0.5},
        "gate": {"margin": 0.5},
    }
    digits = member(school, "digits", **careless)
    parity = member(school, "parity", trainable="head", penalties=[], memory={"capacity": 10})
    fast(school, digits, range(300), shift=range(300))
    fast(school, parity, range(300, 900))
    lives = [school.live(model) for model in (digits, parity)]
    slow(school, digits)
    versions = [school.newest(model) for model in (digits, parity)]
    assert [version.number for version in versions] == [3, 3]
    refusal = f"'parity' {versions[1].verdict}, {versions[1].reason}"
    assert versions[0].verdict == Verdict.INCONCLUSIVE
    assert versions[0].reason == f"held back with its family, of which each must agree: {refusal}"
    assert versions[1].verdict in (Verdict.INCONCLUSIVE, Verdict.REJECTED)
    assert [school.live(model).id for model in (digits, parity)] == [live.id for live in lives]
    assert fast(school, parity, range(900, 950)).base_id == lives[1].base_id


def test_members_on_different_backbones_are_named_with_the_remedy(school: School, family: tuple[Model, Model]) -> None:
    digits = family[0]
    slow(school, digits)
    school.steering.roll_back("parity", to=None, samples=Fate.KEEP, pin=False, reason="", actor="ann")
    with pytest.raises(Conflict, match=r"'digits' version 3 .*'parity' version 2 .*Roll back or promote"):
        school.updater().perform(slow_claim(school, digits))
    assert [school.live(model).number for model in family] == [3, 2]


def test_a_member_that_only_follows_cannot_lead(school: School, family: tuple[Model, Model]) -> None:
    with pytest.raises(Conflict, match=r"recipe\.trainable: 'head'"):
        school.updater().perform(slow_claim(school, family[1]))


def test_a_member_without_samples_follows_the_others(school: School, family: tuple[Model, Model]) -> None:
    late = member(school, "late")
    slow(school, family[0])
    live = school.live(late)
    assert (live.number, live.verdict) == (2, Verdict.PROMOTED)
    assert "it follows" in live.reason
    fast(school, late, range(100))
    assert school.live(late).number == 3


def test_one_who_joins_later_learns_on_the_backbone_that_is_live(school: School, family: tuple[Model, Model]) -> None:
    leader = slow(school, family[0])
    late = member(school, "late")
    first = school.live(late)
    assert (first.files, first.base_id) == (FileState.NONE, leader.id)
    assert school.loader.backbone_of(first)[1] == school.loader.backbone_of(leader)[1]
    version = fast(school, late, range(200))
    assert (version.verdict, version.base_id) == (Verdict.PROMOTED, leader.id)


def test_a_family_that_learned_nothing_has_nothing_to_rehearse(school: School) -> None:
    digits = member(school, "digits")
    member(school, "parity")
    with pytest.raises(NothingLearned):
        school.updater().perform(slow_claim(school, digits))


def test_what_one_holds_out_teaches_no_other(school: School, family: tuple[Model, Model]) -> None:
    digits = family[0]
    apart = {one.content_digest for model in family for one in school.line.holdout(model)}
    learned = sum(one.content_digest not in apart for model in family for one in school.line.memory(model, 2000))
    assert slow(school, digits).metrics["learning"]["new"] == learned
    assert learned < sum(len(school.line.memory(model, 2000)) for model in family)


def test_a_line_that_moved_by_hand_leaves_nothing_behind(school: School, family: tuple[Model, Model]) -> None:
    digits = family[0]
    files = set(school.weights_folder.rglob("*.safetensors"))
    claim = slow_claim(school, digits)
    roll = Countdown(20, lambda: school.steering.set_pinned("parity", value=True, reason="", actor="ann"))

    def give_way() -> None:
        roll()

    with pytest.raises((LeaseLost, StaleParent)):
        school.updater().perform(claim, give_way)
    assert set(school.weights_folder.rglob("*.safetensors")) == files
    assert [school.live(model).number for model in family] == [2, 2]


def test_a_worker_that_is_told_to_stop_lets_all_members_go(school: School, family: tuple[Model, Model]) -> None:
    claim = slow_claim(school, family[0])
    school.updater(stopping=Countdown(10)).perform(claim)
    assert states(school, claim) == {"cancelled"}
    assert slow(school, family[0]).number == 3


def test_whoever_leads_next_goes_on_from_what_the_shared_layers_gathered(
    school: School, family: tuple[Model, Model]
) -> None:
    slow(school, family[0])
    state = school.loader.learner_state(school.live(family[1]))
    assert state is not None
    assert any("/backbone." in name for name in state)
    assert any(name.startswith("sums/") for name in state)
    recipe = Recipe.model_validate(family[0].recipe)
    follower = school.registry.change_recipe("parity", recipe, "ann")
    assert slow(school, follower).metrics["learning"]["resumed"]


def loop_of(school: School, perform: Callable[[Claim, GiveWay], None]) -> Loop:
    return Loop(
        school.queue,
        perform,
        worker="w1",
        stop=threading.Event(),
        keep_house=lambda: None,
        pace=Pace(poll_seconds=0.01),
        clock=lambda: 0.0,
    )


def test_the_loop_runs_one_slow_update_for_the_whole_family_when_one_is_due(school: School) -> None:
    digits = member(school, "digits", schedule={"samples": 300})
    parity = member(school, "parity", schedule={"samples": 250})
    post(school, digits, range(200))
    post(school, parity, range(200, 400))
    lanes: list[tuple[str, str, int]] = []

    def perform(claim: Claim, give_way: GiveWay) -> None:
        lanes.append((claim.lane.value, claim.model.name, len(claim.relatives)))
        school.updater().perform(claim, give_way)

    running = loop_of(school, perform)
    while running.round():
        assert len(lanes) < 10
    assert lanes == [("fast", "digits", 0), ("fast", "parity", 0), ("slow", "digits", 1)]
    assert [school.newest(model).number for model in (digits, parity)] == [3, 3]


@pytest.mark.parametrize("overtaken", [False, True])
def test_what_ends_the_update_of_one_ends_that_of_all(school: School, *, overtaken: bool) -> None:
    digits, parity = member(school, "digits"), member(school, "parity")
    fast(school, digits, range(50))
    school.steering.request_run("digits", reason="", actor="ann", slow=True)
    claims: list[Claim] = []

    def perform(claim: Claim, give_way: GiveWay) -> None:
        claims.append(claim)
        if not overtaken:
            raise RuntimeError("out of luck")
        school.steering.set_pinned("parity", value=True, reason="", actor="ann")
        raise LeaseLost(claim.relatives[0].update_id)

    assert loop_of(school, perform).round()
    assert states(school, claims[0]) == ({"cancelled"} if overtaken else {"failed"})
    school.steering.set_pinned("parity", value=False, reason="", actor="ann")
    assert school.queue.begin(parity.id, worker="w2", lease_seconds=60) is not None
