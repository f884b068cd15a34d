"""Whole updates over real stores: from posted samples to a judged version."""

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest
import torch
from sqlalchemy import update

from app.errors import Corrupt, LeaseLost, MissingWeights, StaleParent
from app.networks.features import features_content
from app.storage.killpoint import KillPoint
from app.storage.settling import Fate
from app.storage.states import ArtifactKind, FileState, SampleState, Verdict
from app.storage.tables import Version
from app.storage.weights import WeightStore
from tests.worker.school import SECRET, Countdown, School
from worker.holdout import fraction


def files(school: School) -> set[Path]:
    return {path for path in school.weights_folder.rglob("*") if path.is_file()}


def weight_file(school: School, version_id: str) -> Path:
    return next(path for path in files(school) if path.name == f"{version_id}.safetensors")


def test_a_model_without_classes_learns_digits_thirty_two_at_a_time(school: School) -> None:
    model = school.create()
    accuracies, verdicts = [], []
    for start in range(0, 512, 32):
        school.post(model, range(start, start + 32))
        verdicts.append(school.learn(model).verdict)
        accuracies.append(school.accuracy(model))
    assert verdicts[0] == Verdict.PROMOTED
    assert accuracies[0] > 0.5
    assert accuracies[-1] >= 0.9
    assert verdicts.count(Verdict.REJECTED) == 0
    live = school.live(model)
    counts = school.registry.counts([live.id])[live.id]
    assert counts["learn"] > 0
    assert {label.name for label in school.registry.labels(model.id)} == {str(digit) for digit in range(10)}
    assert not school.receipts.list(
        model, state=SampleState.QUARANTINED, label=None, source=None, version=None, before=None, limit=1
    )


def test_the_version_says_how_it_came_about(school: School) -> None:
    model = school.create(seed=7)
    school.post(model, range(300))
    version = school.learn(model)
    assert version.verdict == Verdict.PROMOTED
    metrics = version.metrics
    assert metrics["seed"] == 7 + (version.update_id or 0)
    assert metrics["anchor"] == version.id
    assert 0.5 < metrics["accuracy"] <= 1.0
    counts = metrics["counts"]
    assert counts["claimed"] == 300 == counts["learn"] + counts["held"]
    assert metrics["gate"]["n"] == counts["held"] > 0
    assert metrics["learning"]["new"] == counts["learn"]
    assert set(metrics["seconds"]) == {"load", "learn", "judge", "write"}
    assert school.registry.artifacts(version.id).keys() == {ArtifactKind.WEIGHTS, ArtifactKind.LEARNER_STATE}
    held = school.line.holdout(model)
    assert len(held) == counts["held"]
    assert len(school.line.scores(version.id, [one.sample_id for one in held])) == len(held)


def test_a_batch_of_wrong_labels_never_goes_live(school: School) -> None:
    model = school.create()
    school.post(model, range(500))
    good = school.learn(model)
    before = school.accuracy(model)
    poisoned = school.post(model, range(500, 700), shift=1)
    version = school.learn(model)
    assert version.verdict == Verdict.REJECTED
    assert "→" in version.reason
    assert school.live(model).id == good.id
    assert school.accuracy(model) == before
    assert {school.state(model, sample_id) for sample_id in poisoned} == {SampleState.QUARANTINED}
    school.post(model, range(700, 764))
    assert school.learn(model).verdict == Verdict.PROMOTED


def test_a_class_that_comes_later_is_added_and_the_optimizer_goes_on(school: School) -> None:
    model = school.create()
    digits = school.digits.labels
    school.post(model, [i for i in range(700) if digits[i] < 9])
    first = school.learn(model)
    school.post(model, [i for i in range(700) if digits[i] == 9])
    second = school.learn(model)
    assert second.verdict == Verdict.PROMOTED, second.reason
    assert second.metrics["learning"]["resumed"]
    assert len(second.spec["labels"]) == len(first.spec["labels"]) + 1
    assert second.spec["labels"][: len(first.spec["labels"])] == first.spec["labels"]
    assert school.accuracy(model) > 0.85


def test_the_same_claim_from_the_same_parent_gives_the_same_weights(school: School, tmp_path: Path) -> None:
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    other = School(other_folder)
    states = []
    for place in (school, other):
        model = place.create(holdout=0.0)
        place.post(model, range(100))
        place.learn(model)
        states.append(place.network(model).state_dict())
    other.close()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_withdrawals_alone_become_true_whatever_rehearsal_gives(school: School) -> None:
    model = school.create()
    ids = school.post(model, range(200))
    school.learn(model)
    for sample_id in ids[:3]:
        school.intake.withdraw(model, sample_id, "tester")
    version = school.learn(model)
    assert version.verdict == Verdict.PROMOTED
    assert version.metrics["counts"]["removed"] == 3
    assert {school.state(model, sample_id) for sample_id in ids[:3]} == {SampleState.WITHDRAWN}


def test_repeats_with_nothing_to_rehearse_keep_the_weights_to_the_bit(school: School) -> None:
    model = school.create(memory={"capacity": 0})
    school.post(model, range(100))
    first = school.learn(model)
    before = school.network(model).state_dict()
    school.post(model, range(20))
    version = school.learn(model)
    assert version.verdict == Verdict.PROMOTED
    assert version.reason.startswith("weights unchanged")
    assert version.metrics["anchor"] == first.metrics["anchor"]
    after = school.network(model).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert school.registry.artifacts(version.id).keys() == {ArtifactKind.WEIGHTS, ArtifactKind.LEARNER_STATE}


def test_labels_that_trickle_in_wait_until_there_are_enough_to_begin_with(school: School) -> None:
    model = school.create()
    ids = []
    for index in range(5):
        ids += school.post(model, [index])
        assert school.learn(model).verdict == Verdict.INCONCLUSIVE
    assert {school.state(model, sample_id) for sample_id in ids} == {SampleState.QUEUED}
    assert school.queue.due() == []  # nothing is tried again before the next label comes
    school.post(model, range(5, 40))
    assert school.learn(model).verdict == Verdict.PROMOTED
    assert {school.state(model, sample_id) for sample_id in ids} <= {SampleState.LEARNED, SampleState.HELD_OUT}


def of_the_holdout(school: School, start: int) -> list[int]:
    """Digits whose bytes the model's secret holds out once each class has its first ten."""
    digest = [hashlib.sha256(features_content(picture.tolist())).hexdigest() for picture in school.digits.pictures]
    return [index for index in range(start, 1200) if fraction(SECRET, digest[index]) < 0.1]


def test_held_out_labels_alone_wait_for_a_batch_that_the_gate_promotes(school: School) -> None:
    model = school.create(memory={"capacity": 0})
    school.post(model, range(300))
    live = school.learn(model)
    before = len(school.line.holdout(model))
    held = school.post(model, of_the_holdout(school, 300)[:5])
    version = school.learn(model)
    assert version.metrics["counts"]["held"] == 5
    assert version.verdict == Verdict.INCONCLUSIVE
    assert school.live(model).id == live.id
    assert {school.state(model, sample_id) for sample_id in held} == {SampleState.QUEUED}
    assert len(school.line.holdout(model)) == before


def test_a_repeat_of_what_is_held_out_is_a_fact_and_leaves_the_evidence_settled(school: School) -> None:
    model = school.create(memory={"capacity": 0})
    held = of_the_holdout(school, 300)[:5]
    school.post(model, [*range(300), *held])
    settled = school.learn(model).metrics["counts"]["held"]
    again = school.post(model, held)
    version = school.learn(model)
    assert version.verdict == Verdict.PROMOTED
    assert version.reason.startswith("weights unchanged")
    assert (version.metrics["counts"]["settled"], version.metrics["counts"]["repeated"]) == (settled, 5)
    assert {school.state(model, sample_id) for sample_id in again} == {SampleState.HELD_OUT}


def test_a_correction_is_learned_with_its_new_label(school: School) -> None:
    model = school.create()
    ids = school.post(model, range(150))
    school.learn(model)
    index = next(i for i in range(150) if school.state(model, ids[i]) == SampleState.LEARNED)
    wrong = str((school.digits.labels[index] + 1) % 10)
    school.intake.correct(model, ids[index], wrong, "tester")
    version = school.learn(model)
    assert version.metrics["counts"]["learn"] == 1
    assert version.metrics["counts"]["memory"] > 50


@pytest.mark.parametrize(("damage", "error"), [("flip", Corrupt), ("remove", MissingWeights)])
def test_a_damaged_parent_fails_the_update_and_live_stays(school: School, damage: str, error: type[Corrupt]) -> None:
    model = school.create()
    school.post(model, range(64))
    live = school.learn(model)
    path = weight_file(school, live.id)
    if damage == "flip":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    school.post(model, range(64, 96))
    with pytest.raises(error):
        school.updater().perform(school.claim(model))
    assert school.live(model).id == live.id


def test_a_damaged_learner_state_is_done_without(school: School) -> None:
    model = school.create()
    school.post(model, range(64))
    live = school.learn(model)
    next(path for path in files(school) if path.name == f"{live.id}.learner.safetensors").write_bytes(b"nothing")
    school.post(model, range(64, 128))
    assert not school.learn(model).metrics["learning"]["resumed"]


def test_a_rollback_during_an_update_wins_and_leaves_no_files(school: School) -> None:
    model = school.create()
    school.post(model, range(64))
    school.learn(model)
    before = files(school)
    school.post(model, range(64, 128))

    def roll_back() -> None:
        school.steering.roll_back(model.name, to=None, samples=Fate.KEEP, pin=False, reason="test", actor="admin")
        countdown.calls = 10**9  # the update itself goes on and only finds out at its commit

    countdown = Countdown(5, roll_back)
    countdown.said.set = lambda: None  # type: ignore[method-assign]  # never say yes
    with pytest.raises((LeaseLost, StaleParent)):
        school.updater(countdown).perform(school.claim(model))
    assert files(school) == before
    assert school.live(model).number == 1


def test_told_to_stop_it_lets_the_claim_go_without_counting_an_attempt(school: School) -> None:
    model = school.create()
    ids = school.post(model, range(64))
    school.updater(Countdown(5)).perform(school.claim(model))
    assert school.live(model).number == 1
    assert {school.state(model, sample_id) for sample_id in ids} == {SampleState.QUEUED}
    assert school.learn(model).verdict == Verdict.PROMOTED


def test_a_lost_lease_stops_the_training(school: School) -> None:
    model = school.create()
    school.post(model, range(64))
    claim = school.claim(model)
    school.queue.release(claim.update_id, "somebody else's now")
    waiting = threading.Event()

    def until_lost() -> bool:
        waiting.wait(0.01)  # the heartbeat, not the training, is to end this
        return False

    with pytest.raises(LeaseLost):
        school.updater(until_lost, lease_seconds=0.05).perform(claim)
    assert school.live(model).number == 1


def test_an_anchor_without_files_gives_its_place_to_live(school: School) -> None:
    model = school.create()
    school.post(model, range(200))
    school.learn(model)
    school.post(model, range(200, 300))
    live = school.learn(model)
    anchor = school.registry.version_by_id(live.metrics["anchor"])
    for version in {anchor.id} - {live.id}:
        weight_file(school, version).unlink()
    school.post(model, range(300, 400))
    assert school.learn(model).metrics["anchor"] is not None
    assert anchor.files == FileState.PRESENT


def test_a_damaged_anchor_gives_its_place_to_live_and_nothing_is_said_in_its_name(school: School) -> None:
    model = school.create()
    school.post(model, range(200))
    anchor = school.learn(model)
    school.post(model, range(200, 300))
    live = school.learn(model)
    with school.database.sessions.begin() as session:
        session.execute(update(Version).where(Version.id == live.id).values(metrics={"anchor": anchor.id}))
    weight_file(school, anchor.id).write_bytes(b"nothing")
    posted = school.post(model, range(300, 400))
    version = school.learn(model)
    assert version.metrics["anchor"] in (live.id, version.id)
    assert school.line.scores(anchor.id, posted) == {}
    assert school.line.scores(live.id, posted) != {}


def test_a_disk_that_fills_up_between_two_files_keeps_neither(school: School, tmp_path: Path) -> None:
    model = school.create()
    school.post(model, range(64))
    school.learn(model)
    before = files(school)
    school.post(model, range(64, 128))
    school.weights = WeightStore(school.weights_folder, DiskFull(2))
    with pytest.raises(OSError, match="No space left"):
        school.updater().perform(school.claim(model))
    assert files(school) == before


class DiskFull(KillPoint):
    """Has no space left for the given file."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    def __call__(self, name: str) -> None:
        self.left -= name == "during_write"
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
