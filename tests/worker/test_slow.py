"""The slow lane beside the fast one: what comes while it learns is in what it publishes, and it publishes in peace."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from app.errors import LeaseLost
from app.networks.serialization import from_bytes
from app.storage.settling import Fate
from app.storage.states import ArtifactKind, Lane, SampleState, UpdateKind, Verdict
from tests.worker.joint import contents, difference
from tests.worker.school import School, asked, inputs_read
from worker.loop import GiveWay, Loop, Pace

SLOW: dict[str, Any] = {
    "head": {"kind": "ridge"},
    "trainable": "all",
    "penalties": [],
    "optimizer": {"kind": "sgd", "lr": 0.01},
    "early_stopping": {"passes": 2, "patience": 1},
}
SAME = 1e-5


class Ticking:
    """A clock on which every look is a second later."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        self.at += 1.0
        return self.at


class Once:
    """Does something the first time it is called, and nothing after that."""

    def __init__(self, what: Callable[[], object]) -> None:
        self.what: Callable[[], object] | None = what

    def __call__(self) -> None:
        what, self.what = self.what, None
        if what is not None:
            what()


def test_labels_that_come_while_it_learns_are_learned_at_once_and_are_in_what_it_publishes(school: School) -> None:
    model = school.create(**SLOW)
    updater = school.updater()
    school.post(model, range(300))
    school.learn(model, updater)
    school.steering.request_run(model.name, reason="", actor="ann", slow=True)
    lanes = []

    def perform(claim: Any, give_way: GiveWay) -> None:
        lanes.append(claim.lane)
        if claim.lane == Lane.SLOW:
            school.post(model, range(300, 312))
        updater.perform(claim, give_way)

    loop = Loop(
        school.queue,
        perform,
        worker="w1",
        stop=threading.Event(),
        keep_house=lambda: None,
        pace=Pace(poll_seconds=0.01, claim_limit=5),
        clock=Ticking(),
    )
    assert loop.round()
    assert lanes[:2] == [Lane.SLOW, Lane.FAST]
    slow = school.newest(model)
    assert slow.metrics["kind"] == UpdateKind.REFINE
    assert slow.verdict == Verdict.PROMOTED, slow.reason
    assert slow.base_id is None
    assert slow.parent_id is not None
    before = school.registry.version_by_id(slow.parent_id)
    assert before.metrics["lane"] == Lane.FAST
    assert slow.metrics["head"]["samples"] == before.metrics["head"]["samples"] == len(contents(school, model))
    assert slow.metrics["prequential"]["n"] == before.metrics["prequential"]["n"]
    assert difference(school, model) < SAME
    assert not loop.round()
    school.post(model, [320])
    assert loop.round()
    assert school.newest(model).base_id == slow.id
    assert difference(school, model) < SAME


@pytest.mark.parametrize("act", ["roll back", "pin"])
def test_what_an_admin_does_meanwhile_stands_and_nothing_is_published(school: School, act: str) -> None:
    model = school.create(**SLOW)
    updater = school.updater()
    school.post(model, range(200))
    school.learn(model, updater)
    school.post(model, range(200, 220))
    school.learn(model, updater)

    def acting() -> None:
        if act == "pin":
            school.steering.set_pinned(model.name, True, reason="", actor="ann")
        else:
            school.steering.roll_back(model.name, to=None, samples=Fate.REQUEUE, pin=False, reason="", actor="ann")

    claim = school.begin(model)
    newest = school.newest(model)
    with pytest.raises(LeaseLost):
        updater.perform(claim, Once(acting))
    assert school.newest(model).id == newest.id
    assert school.live(model).number == (newest.number if act == "pin" else newest.number - 1)


def test_a_refused_backbone_changes_nothing_and_its_features_are_let_go(school: School) -> None:
    model = school.create(
        architecture="small_cnn", **{**SLOW, "optimizer": {"kind": "sgd", "lr": 1.0, "momentum": 0.99}}
    )
    updater = school.updater()
    school.post(model, range(400))
    live = school.learn(model, updater)
    backbone = school.loader.backbone_of(live)[1]
    refused = school.refine(model, updater)
    assert refused.verdict != Verdict.PROMOTED, refused.reason
    assert school.live(model).id == live.id
    digests = list(contents(school, model))
    assert len(school.features.read(model.id, backbone, digests)) == len(digests)
    assert not school.features.read(model.id, school.loader.backbone_of(refused)[1], digests)
    school.post(model, [400])
    assert school.learn(model, updater).verdict == Verdict.PROMOTED
    assert difference(school, model) < SAME


def test_a_worker_that_starts_goes_on_from_saved_sums_without_reading_old_inputs(school: School) -> None:
    model = school.create(architecture="small_cnn", holdout=0.0, **{**SLOW, "trainable": "head", "penalties": []})
    school.post(model, range(700))
    saved = school.learn(model)
    assert ArtifactKind.LEARNER_STATE in school.registry.artifacts(saved.id)
    school.post(model, [700])
    with asked(school) as statements:
        version = school.learn(model)
    assert inputs_read(statements) == 1
    assert ArtifactKind.LEARNER_STATE not in school.registry.artifacts(version.id)
    assert difference(school, model) < SAME


def test_sums_of_another_backbone_projection_or_forgetting_are_not_used(school: School) -> None:
    model = school.create(architecture="linear", **{**SLOW, "trainable": "head"})
    school.post(model, range(700))
    school.learn(model)
    for number, head in enumerate(
        ({"kind": "ridge", "projection": 80}, {"kind": "ridge", "forgetting": 0.999}, {"kind": "slda"})
    ):
        school.change_recipe(model, **{**SLOW, "trainable": "head", "head": head, "gate": {"margin": 0.2}})
        school.post(model, range(700 + 10 * number, 710 + 10 * number))
        version = school.learn(model)
        assert version.verdict == Verdict.PROMOTED, version.reason
        assert version.metrics["head"]["samples"] == len(contents(school, model))
        assert difference(school, model) < 1e-4


def test_forgetting_sums_survive_a_restart(school: School) -> None:
    recipe = {**SLOW, "trainable": "head", "head": {"kind": "ridge", "forgetting": 0.99}}
    model = school.create(architecture="linear", holdout=0.0, **recipe)
    school.post(model, range(700))
    school.learn(model)
    ids = [one.sample_id for one in school.line.learned(model)]
    school.intake.withdraw(model, ids[10], "ann")
    school.post(model, [701])
    version = school.learn(model)
    assert version.verdict == Verdict.PROMOTED, version.reason
    assert version.metrics["head"]["samples"] == 700
    assert difference(school, model) < 1e-4


def test_what_the_slow_lane_left_is_there_for_the_next_one_though_the_fast_lane_saved_meanwhile(
    school: School,
) -> None:
    model = school.create(**SLOW)
    updater = school.updater()
    school.post(model, range(250))
    school.learn(model, updater)
    slow = school.refine(model, updater)
    assert slow.verdict == Verdict.PROMOTED, slow.reason
    left = school.loader.learner_state(slow)
    assert left is not None
    optimizer = {name for name in left if not name.startswith(("sums/", "tally/"))}
    assert optimizer
    school.post(model, range(250, 900))
    fast = school.learn(model)
    saved = school.registry.artifacts(fast.id)[ArtifactKind.LEARNER_STATE]
    assert optimizer <= from_bytes(school.weights.read(fast.id, saved)).keys()
    assert difference(school, model) < SAME
    again = school.refine(model)
    assert again.metrics["learning"]["resumed"]


def test_a_scheduled_rehearsal_of_a_softmax_model_claims_nothing(school: School) -> None:
    model = school.create(schedule={"samples": 100}, holdout=0.2)
    school.post(model, range(120))
    school.learn(model)
    assert [one.kind for one in school.queue.due()] == [UpdateKind.REFINE]
    waiting = school.post(model, [200])[0]
    version = school.refine(model)
    assert version.metrics["counts"]["claimed"] == 0
    assert version.metrics["kind"] == UpdateKind.REFINE
    assert school.state(model, waiting) == SampleState.QUEUED
    assert not any(one.kind == UpdateKind.REFINE for one in school.queue.due())
    assert torch.isfinite(school.network(model).head.weight).all()
