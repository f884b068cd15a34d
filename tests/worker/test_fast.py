"""The fast lane over real stores: whatever comes, and in whatever order, the head is the one solved at once."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from app.recipe import Recipe
from app.storage.settling import Fate
from app.storage.states import ArtifactKind, SampleState, Verdict
from app.storage.tables import Version
from tests.worker.joint import contents, difference, joint_head
from tests.worker.school import School, asked, inputs_read
from worker.learning.strength import Choice
from worker.taught import refinement

RIDGE: dict[str, Any] = {"head": {"kind": "ridge"}, "trainable": "head", "penalties": []}
SLDA: dict[str, Any] = {"head": {"kind": "slda"}, "trainable": "head", "penalties": []}
SAME = 1e-5  # as a share: float32, and features that were made in other batches


def head(school: School, version: Version) -> tuple[Tensor, Tensor]:
    network = school.loader.load(version)
    return network.head.weight.detach().clone(), network.head.bias.detach().clone()


@pytest.mark.parametrize("architecture", ["linear", "mlp", "small_cnn"])
@pytest.mark.parametrize("recipe", [RIDGE, SLDA], ids=["ridge", "slda"])
def test_labels_one_by_one_end_in_the_head_that_is_solved_at_once(
    school: School, recipe: dict[str, Any], architecture: str
) -> None:
    model = school.create(architecture=architecture, **recipe)
    updater = school.updater()
    for index in range(40):
        school.post(model, [index])
        school.learn(model, updater)
    school.post(model, range(40, 260))
    version = school.learn(model, updater)
    school.post(model, range(260, 265))
    version = school.learn(model, updater)
    assert version.verdict == Verdict.PROMOTED, version.reason
    assert len(contents(school, model)) > 200
    assert difference(school, model) < SAME


def test_any_order_and_any_claims_give_one_head(school: School) -> None:
    heads = []
    for name, order in (("up", range(300)), ("down", range(299, -1, -1))):
        model = school.create(name, architecture="small_cnn", holdout=0.0, **RIDGE)
        updater = school.updater()
        for start in range(0, 300, 100 if name == "up" else 75):
            school.post(model, list(order)[start : start + (100 if name == "up" else 75)])
            school.learn(model, updater)
        names = {label.id: label.name for label in school.registry.labels(model.id)}
        joint, live = joint_head(school, model), school.live(model)
        weight, _ = head(school, live)
        assert torch.allclose(weight, joint.weight, atol=SAME)
        rows = sorted(range(10), key=lambda row: names[live.spec["labels"][row]])
        heads.append((weight / live.metrics["choice"]["scale"])[rows])
        assert live.metrics["head"]["samples"] == 300
    assert float((heads[0] - heads[1]).abs().max()) < 1e-4


def test_a_correction_and_a_withdrawal_leave_what_posting_it_right_would_have_left(school: School) -> None:
    model = school.create(architecture="small_cnn", **RIDGE)
    updater = school.updater()
    school.post(model, range(250))
    wrong = school.post(model, [260], shift=3)[0]
    gone = school.post(model, [270])[0]
    school.learn(model, updater)
    before = school.live(model).metrics["head"]["samples"]
    learned = {one.sample_id for one in school.line.learned(model)}
    assert {wrong, gone} <= learned, "both fell on the learned side"
    school.intake.correct(model, wrong, str(school.digits.labels[260]), "tester")
    assert school.learn(model, updater).verdict == Verdict.PROMOTED
    school.intake.withdraw(model, gone, "tester")
    version = school.learn(model, updater)
    assert version.verdict == Verdict.PROMOTED
    assert version.metrics["head"]["samples"] == before - 1
    assert difference(school, model) < SAME
    assert {one.sample_id for one in school.line.learned(model)} == learned - {gone}


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_withdrawn_is_out_of_the_head_and_out_of_the_stores(school: School, restarted: bool) -> None:
    model = school.create(architecture="small_cnn", **RIDGE)
    updater = school.updater()
    ids = school.post(model, range(250))
    school.learn(model, updater)
    learned = {one.sample_id: one.content_digest for one in school.line.learned(model)}
    gone = next(sample_id for sample_id in ids if sample_id in learned)
    backbone = school.loader.backbone_of(school.live(model))[1]
    features = school.features.read(model.id, backbone, [learned[gone]])
    assert features
    live = school.live(model)
    school.intake.withdraw(model, gone, "tester")
    assert school.line.contents([gone])
    version = school.learn(model, school.updater() if restarted else updater)
    assert version.verdict == Verdict.PROMOTED
    assert not torch.equal(head(school, version)[0], head(school, live)[0])
    assert version.metrics["head"]["samples"] == len(learned) - 1
    assert school.line.contents([gone]) == {}
    assert school.features.read(model.id, backbone, [learned[gone]]) == {}
    assert difference(school, model) < SAME
    school.post(model, [300])
    school.learn(model)  # a worker that starts now rebuilds the sums
    assert difference(school, model) < SAME


def test_withdrawals_become_true_though_the_head_gets_worse(school: School) -> None:
    model = school.create(architecture="small_cnn", **RIDGE)
    updater = school.updater()
    ids = school.post(model, range(400))
    school.learn(model, updater)
    learned = {one.sample_id for one in school.line.learned(model)}
    for sample_id in [one for one in ids if one in learned][20:]:
        school.intake.withdraw(model, sample_id, "tester")
    version = school.learn(model, updater)
    assert version.verdict == Verdict.PROMOTED, version.reason
    assert len(contents(school, model)) == 20
    assert not school.queue.due()


def test_duplicates_count_once_and_removing_one_of_them_changes_nothing(school: School) -> None:
    model = school.create(architecture="small_cnn", **RIDGE)
    updater = school.updater()
    first = school.post(model, range(200))
    school.learn(model, updater)
    samples = school.live(model).metrics["head"]["samples"]
    school.post(model, range(50))
    again = school.learn(model, updater)
    assert again.verdict == Verdict.PROMOTED
    assert again.reason.startswith("weights unchanged")
    learned = {one.sample_id for one in school.line.learned(model)}
    school.intake.withdraw(model, next(one for one in first[:50] if one in learned), "tester")
    assert school.learn(model, updater).reason.startswith("weights unchanged")
    school.post(model, [210, 210])
    assert school.learn(model, updater).metrics["head"]["samples"] == samples + 1
    assert difference(school, model) < SAME


def test_a_rollback_takes_the_head_back_and_the_next_label_goes_on_from_there(school: School) -> None:
    model = school.create(architecture="small_cnn", **RIDGE)
    updater = school.updater()
    school.post(model, range(200))
    good = school.learn(model, updater)
    of_good = head(school, good)
    school.post(model, range(200, 300))
    later = school.learn(model, updater)
    school.steering.roll_back(model.name, to=None, samples=Fate.QUARANTINE, pin=False, reason="", actor="ann")
    assert torch.equal(head(school, school.live(model))[0], of_good[0])
    school.post(model, [310])
    onward = school.learn(model, updater)
    assert onward.parent_id == good.id
    assert onward.metrics["head"]["samples"] == good.metrics["head"]["samples"] + 1
    assert difference(school, model) < SAME
    # Forward again: what the rolled-back version had learned is in once more, what came after it is not.
    school.steering.roll_back(model.name, to=later.number, samples=Fate.QUARANTINE, pin=False, reason="", actor="ann")
    school.post(model, [320])
    forward = school.learn(model, updater)
    assert forward.metrics["head"]["samples"] == later.metrics["head"]["samples"] + 1
    assert difference(school, model) < SAME


def test_a_refused_batch_leaves_sums_and_head_as_they_were(school: School) -> None:
    twins = [school.create(name, architecture="linear", **RIDGE) for name in ("one", "two")]
    updater = school.updater()
    for model in twins:
        school.post(model, range(700))
        school.learn(model, updater)
    before = head(school, school.live(twins[0]))
    school.post(twins[0], range(700, 1700), shift=1)
    refused = school.learn(twins[0], updater)
    assert refused.verdict == Verdict.REJECTED, refused.reason
    assert torch.equal(head(school, school.live(twins[0]))[0], before[0])
    for model in twins:
        school.post(model, [1750])
        assert school.learn(model, updater).verdict == Verdict.PROMOTED
    heads = [head(school, school.live(model)) for model in twins]
    assert torch.equal(heads[0][0], heads[1][0])
    assert torch.equal(heads[0][1], heads[1][1])


def test_a_new_class_is_a_new_row_and_the_others_stay_finite(school: School) -> None:
    model = school.create(architecture="linear", **RIDGE)
    updater = school.updater()
    labels = school.digits.labels
    school.post(model, [index for index in range(300) if labels[index] < 9])
    first = school.learn(model, updater)
    school.post(model, [next(index for index in range(300) if labels[index] == 9)])
    version = school.learn(model, updater)
    assert version.verdict == Verdict.PROMOTED
    assert version.spec["labels"][:9] == first.spec["labels"]
    weight, bias = head(school, version)
    assert weight.shape[0] == 10
    assert weight.isfinite().all()
    assert bias.isfinite().all()
    assert difference(school, model) < SAME


def test_a_delta_holds_the_head_alone(school: School) -> None:
    model = school.create(architecture="small_cnn", **RIDGE)
    updater = school.updater()
    initial = school.live(model)
    school.post(model, range(100))
    school.learn(model, updater)
    school.post(model, [100])
    version = school.learn(model, updater)
    assert version.base_id == initial.id
    width = school.network(model).width
    size = school.registry.artifacts(version.id)[ArtifactKind.WEIGHTS].nbytes
    assert size < 4 * 10 * (width + 1) + 500
    assert ArtifactKind.LEARNER_STATE not in school.registry.artifacts(version.id)


def test_a_label_more_costs_the_same_however_long_the_line_is(school: School) -> None:
    counts = []
    for name, length in (("short", 300), ("long", 1500)):
        model = school.create(name, architecture="small_cnn", **RIDGE)
        updater = school.updater()
        school.post(model, range(length))
        school.learn(model, updater)
        for index in (1600, 1601):  # the first of them meets the held-out samples for the first time as settled
            school.post(model, [index])
            with asked(school) as statements:
                school.learn(model, updater)
        assert inputs_read(statements) == 1
        assert not any("JOIN revisions" in statement for statement, _ in statements), "the line was read"
        counts.append(len(statements))
        assert len(json.dumps(school.newest(model).metrics)) < 4000
    assert counts[1] <= counts[0] + 2 < 80


def test_held_out_labels_alone_wait_for_a_head_that_may_vouch_for_them(school: School) -> None:
    model = school.create(architecture="linear", holdout=0.5, **RIDGE)
    updater = school.updater()
    school.post(model, range(300))
    live = school.learn(model, updater)
    index = 300
    while True:
        sample = school.post(model, [index])[0]
        version = school.learn(model, updater)
        index += 1
        if version.metrics["counts"]["held"] == version.metrics["counts"]["claimed"]:
            break
        live = version
    assert version.verdict == Verdict.INCONCLUSIVE
    assert school.live(model).id == live.id
    assert school.state(model, sample) == SampleState.QUEUED
    assert not school.queue.due()
    while school.state(model, sample) != SampleState.HELD_OUT:
        school.post(model, [index])
        school.learn(model, updater)
        index += 1
        assert index < 400
    assert difference(school, model) < SAME


def test_test_samples_neither_teach_nor_judge_and_are_reported(school: School) -> None:
    model = school.create(architecture="linear", test=0.2, **RIDGE)
    updater = school.updater()
    school.post(model, range(300))
    school.learn(model, updater)
    kept = {one.content_digest for one in school.line.test_split(model)}
    assert 20 < len(kept) < 100
    assert not kept & contents(school, model).keys()
    assert not kept & {one.content_digest for one in school.line.holdout(model)}
    school.post(model, range(300, 320))
    version = school.learn(model, updater)
    test = version.metrics["test"]
    assert test["n"] == len(kept)
    assert test["accuracy"] > 0.8
    assert sum(n for _, n in test["per_class"].values()) == test["n"]
    assert version.metrics["gate"]["n"] == len(school.line.holdout(model))


def test_per_class_and_per_slice_add_up_and_each_label_is_tracked_once(school: School) -> None:
    model = school.create(architecture="linear", **RIDGE)
    updater = school.updater()
    for index in range(120):
        school.post(model, [index])
        school.learn(model, updater)
    school.post(model, range(120, 130))
    metrics = school.learn(model, updater).metrics
    judged = len(school.line.holdout(model))
    assert {label: n for label, (_, n) in metrics["per_class_before"].items()} == {
        label: n for label, (_, n) in metrics["per_class"].items()
    }
    for pairs in (metrics["per_class"], metrics["per_slice"]):
        assert sum(n for _, n in pairs.values()) == judged
        assert sum(right for right, _ in pairs.values()) == round(metrics["accuracy"] * judged)
    assert metrics["prequential"]["n"] == len(contents(school, model)) + judged == 130
    assert 0.5 < metrics["prequential"]["whole"] < 1.0


def test_of_two_heads_the_one_that_answers_better_serves(school: School) -> None:
    recipe = {**RIDGE, "head": {"kind": "ridge", "forgetting": 0.95}}
    model = school.create(architecture="linear", holdout=0.0, **recipe)
    updater = school.updater()
    school.post(model, range(300))
    version = school.learn(model, updater)
    assert version.metrics["head"]["serves"] == "steady"
    for start in range(300, 700, 20):
        school.post(model, range(start, start + 20), shift=1)
        version = school.learn(model, updater)
        assert version.verdict == Verdict.PROMOTED, version.reason
    assert version.metrics["head"]["serves"] == "fading"
    assert version.metrics["prequential"]["state"]["better"]["serving"] == "fading"


def test_a_projection_is_fed_and_may_be_changed(school: School) -> None:
    recipe = {**RIDGE, "head": {"kind": "ridge", "projection": 150}}
    model = school.create(architecture="linear", **recipe)
    updater = school.updater()
    school.post(model, range(300))
    assert school.learn(model, updater).spec["projection"] == 150
    assert difference(school, model) < 1e-4
    school.change_recipe(model, **RIDGE)
    school.post(model, [300])
    version = school.learn(model, updater)
    assert version.verdict == Verdict.PROMOTED, version.reason
    assert version.spec["projection"] == 0
    assert difference(school, model) < SAME


def test_a_refined_head_is_the_same_in_any_order_and_forgets_what_is_withdrawn(school: School) -> None:
    recipe = {**SLDA, "head": {"kind": "slda", "power": 0.7, "refinement": 2}}
    model = school.create(architecture="small_cnn", **recipe)
    updater = school.updater()
    for start in range(0, 60, 20):
        school.post(model, range(start, start + 20))
        school.learn(model, updater)
    ids = school.post(model, range(60, 300))
    wrong = school.post(model, [310], shift=3)[0]
    assert school.learn(model, updater).verdict == Verdict.PROMOTED
    assert difference(school, model) < SAME
    learned = {one.sample_id for one in school.line.learned(model)}
    school.intake.withdraw(model, next(one for one in ids if one in learned), "tester")
    school.intake.correct(model, wrong, str(school.digits.labels[310]), "tester")
    assert school.learn(model, updater).verdict == Verdict.PROMOTED
    assert difference(school, model) < SAME
    school.post(model, range(320, 325))
    version = school.learn(model)  # a worker that starts now
    assert refinement(Recipe.model_validate(version.recipe), Choice.from_json(version.metrics["choice"])) == 2
    assert difference(school, model) < SAME


def test_steps_follow_only_where_samples_left_out_ask_for_little_shrinkage() -> None:
    recipe = Recipe.model_validate({**SLDA, "head": {"kind": "slda", "refinement": 2}})
    choices = [Choice(strength, 0.3, 500, rows, 0.1, 0.9) for strength, rows in ((0.3, 100), (0.5, 100), (0.3, 0))]
    assert [refinement(recipe, choice) for choice in (*choices, None)] == [2, 0, 0, 0]
    assert refinement(Recipe.model_validate(RIDGE), choices[0]) == 0


@pytest.mark.parametrize("projection", [0, 150])
def test_a_power_of_pictures_is_fed_and_may_be_changed(school: School, projection: int) -> None:
    plain = {**SLDA, "head": {"kind": "slda", "projection": projection}}
    model = school.create(architecture="small_cnn", **plain)
    updater = school.updater()
    school.post(model, range(250))
    assert school.learn(model, updater).spec["power"] is None
    school.change_recipe(model, **{**plain, "head": {**plain["head"], "power": 0.5}})
    ids = school.post(model, range(250, 300))
    version = school.learn(model, updater)
    assert version.verdict == Verdict.PROMOTED, version.reason
    assert version.spec["power"] == 0.5
    assert version.metrics["head"]["samples"] == len(contents(school, model))
    assert difference(school, model) < (1e-4 if projection else SAME)
    learned = {one.sample_id for one in school.line.learned(model)}
    school.intake.withdraw(model, next(one for one in ids if one in learned), "tester")
    assert school.learn(model).metrics["head"]["samples"] == len(learned) - 1
    assert difference(school, model) < (1e-4 if projection else SAME)
    school.change_recipe(model, **plain)
    school.post(model, range(300, 305))
    assert school.learn(model, updater).spec["power"] is None
    assert difference(school, model) < (1e-4 if projection else SAME)


def test_vectors_of_numbers_are_raised_to_no_power(school: School) -> None:
    model = school.create(architecture="linear", **{**SLDA, "head": {"kind": "slda", "power": 0.5}})
    school.post(model, range(100))
    assert school.learn(model).spec["power"] is None
    assert difference(school, model) < SAME


def test_a_living_model_changes_from_softmax_to_ridge_and_back(school: School) -> None:
    model = school.create()
    updater = school.updater()
    school.post(model, range(300))
    school.learn(model, updater)
    school.change_recipe(model, **RIDGE)
    school.post(model, range(300, 320))
    ridge = school.learn(model, updater)
    assert ridge.verdict == Verdict.PROMOTED, ridge.reason
    assert ridge.base_id is not None
    assert difference(school, model) < 1e-4
    school.change_recipe(model)
    school.post(model, range(320, 400))
    softmax = school.learn(model, updater)
    assert softmax.verdict == Verdict.PROMOTED, softmax.reason
    assert softmax.base_id is None
    assert softmax.metrics["prequential"]["n"] == 400


def test_extreme_numbers_fail_the_update_with_a_reason_and_nothing_else(school: School) -> None:
    model = school.create(architecture="linear", **RIDGE)
    updater = school.updater()
    school.post(model, range(250))
    live = school.learn(model, updater)
    network = school.network(model)
    with torch.no_grad():
        next(network.backbone.buffers()).fill_(float("nan"))
    posted = school.post(model, [300])[0]
    claim = school.claim(model)
    with pytest.raises(Exception, match="not finite") as raised:
        updater.perform(claim)
    school.queue.fail(claim.update_id, str(raised.value))
    assert school.live(model).id == live.id
    assert school.state(model, posted) == SampleState.QUEUED
