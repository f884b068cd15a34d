"""The worker is really killed at every named point of an update; afterwards nothing is lost or learned twice."""

import signal

import pytest

from app.storage.tables import Model
from app.storage.weights import WeightStore
from tests.app.storage.stores import Stores
from tests.processes import school
from tests.processes.processes import Installation, wait_until

POINTS = [
    "after_claim",
    "after_training",
    "during_write",
    "after_write",
    "before_commit",
    "inside_commit",
    "after_commit",
]


def kill_and_follow(installation: Installation, stores: Stores, model: Model, point: str) -> None:
    """A worker dies at the point and another goes on, 34 labels in all: each that was acknowledged is there, once."""
    acknowledged = school.post(stores, model, school.samples(24))
    with installation.process("worker", KILL_AT=point) as doomed:
        wait_until(lambda: doomed.exit_code is not None, f"the worker dies {point}")
        assert doomed.exit_code == -signal.SIGKILL
    acknowledged += school.post(stores, model, school.samples(10, seed=1))
    with installation.process("worker") as worker:
        wait_until(lambda: school.settled(stores, model), "another worker finishes the work")
        assert worker.stop() == 0
    school.check_nothing_lost(stores, model, acknowledged, WeightStore(installation.folder / "weights"))


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_at_any_point_loses_nothing_and_learns_nothing_twice(
    installation: Installation, stores: Stores, point: str
) -> None:
    model = school.create(stores)
    kill_and_follow(installation, stores, model, point)
    assert set(school.states(stores, model)) <= {"learned", "held_out"}
    assert stores.registry.live(model.id).version.number >= 2


RIDGE = {"head": {"kind": "ridge"}, "trainable": "all", "penalties": []}


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_in_the_fast_lane_loses_nothing_and_learns_nothing_twice(
    installation: Installation, stores: Stores, point: str
) -> None:
    model = school.create(stores, **RIDGE, holdout=0.0)
    kill_and_follow(installation, stores, model, point)
    assert set(school.states(stores, model)) == {"learned"}
    assert stores.registry.live(model.id).version.metrics["head"]["samples"] == 34


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_in_the_slow_lane_leaves_the_fast_one_free_and_the_line_whole(
    installation: Installation, stores: Stores, point: str
) -> None:
    model = school.create(stores, **RIDGE, holdout=0.0)
    acknowledged = school.post(stores, model, school.samples(24))
    with installation.process("worker") as worker:
        wait_until(lambda: school.settled(stores, model), "the fast lane learns")
        assert worker.stop() == 0
    before = stores.registry.live(model.id).version
    stores.steering.request_run(model.name, reason="", actor="tester", slow=True)
    with installation.process("worker", KILL_AT=point) as doomed:
        wait_until(lambda: doomed.exit_code is not None, f"the worker dies {point}")
        assert doomed.exit_code == -signal.SIGKILL
    acknowledged += school.post(stores, model, school.samples(10, seed=1))
    with installation.process("worker") as worker:
        wait_until(lambda: school.settled(stores, model), "another worker goes on")
        assert worker.stop() == 0
    school.check_nothing_lost(stores, model, acknowledged, WeightStore(installation.folder / "weights"))
    live = stores.registry.live(model.id).version
    assert before.id in stores.registry.line(live.id)
    assert live.metrics["head"]["samples"] == 34
    assert (live.base_id == before.base_id) == (point != "after_commit")


@pytest.mark.slow
def test_rounds_go_on_over_restarts(installation: Installation, stores: Stores) -> None:
    model = school.create(stores)
    acknowledged: list[str] = []
    lives = [1]
    for round_number in range(3):
        acknowledged += school.post(stores, model, school.samples(16, seed=round_number))
        with installation.process("worker") as worker:
            wait_until(lambda: school.settled(stores, model), f"round {round_number} ends")
            assert worker.stop() == 0
        lives.append(stores.registry.live(model.id).version.number)
    assert lives == sorted(set(lives))
    school.check_nothing_lost(stores, model, acknowledged, WeightStore(installation.folder / "weights"))


@pytest.mark.slow
def test_two_workers_on_one_model_share_the_work_and_learn_nothing_twice(
    installation: Installation, stores: Stores
) -> None:
    model = school.create(stores)
    acknowledged: list[str] = []
    with installation.process("worker") as first, installation.process("worker") as second:
        for burst in range(10):
            acknowledged += school.post(stores, model, school.samples(20, seed=burst))
        wait_until(lambda: school.settled(stores, model), "all bursts are learned")
        assert (first.stop(), second.stop()) == (0, 0)
    school.check_nothing_lost(stores, model, acknowledged, WeightStore(installation.folder / "weights"))
    assert set(school.states(stores, model)) <= {"learned", "held_out"}


@pytest.mark.slow
def test_a_paused_worker_whose_lease_lapsed_publishes_nothing_when_it_wakes(
    installation: Installation, stores: Stores
) -> None:
    # Long enough to be caught in the middle: patience keeps it learning.
    model = school.create(stores, early_stopping={"passes": 1000, "patience": 100})
    acknowledged = school.post(stores, model, school.samples(400))
    with installation.process("worker") as sleeper:
        wait_until(lambda: school.states(stores, model)["claimed"] > 0, "the first worker works")
        sleeper.send_signal(signal.SIGSTOP)
        with installation.process("worker") as other:
            wait_until(lambda: school.settled(stores, model), "the second worker takes over and finishes")
            live = stores.registry.live(model.id)
            sleeper.send_signal(signal.SIGCONT)
            acknowledged += school.post(stores, model, school.samples(8, seed=1))
            wait_until(lambda: school.settled(stores, model), "the next round ends")
            assert (other.stop(), sleeper.stop()) == (0, 0)
    assert live.version.id in stores.registry.line(stores.registry.live(model.id).version.id)
    school.check_nothing_lost(stores, model, acknowledged, WeightStore(installation.folder / "weights"))


@pytest.mark.slow
def test_a_corrupt_live_version_fails_the_update_with_its_reason_and_stays_the_pointer(
    installation: Installation, stores: Stores
) -> None:
    model = school.create(stores)
    school.post(stores, model, school.samples(16))
    with installation.process("worker") as worker:
        wait_until(lambda: school.settled(stores, model), "the first round ends")
        live = stores.registry.live(model.id)
        file = next((installation.folder / "weights").glob(f"*/{live.version.id}.safetensors"))
        good = file.read_bytes()
        file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        (first, *_) = school.post(stores, model, school.samples(8, seed=1))
        wait_until(lambda: stores.failures(model) > 0, "an update fails")
        assert stores.registry.live(model.id).version.id == live.version.id
        assert stores.state(model, first) in ("queued", "claimed")
        file.write_bytes(good)
        wait_until(lambda: school.settled(stores, model), "it is learned once the file is whole again")
        assert worker.stop() == 0
    assert stores.state(model, first) in ("learned", "held_out")
