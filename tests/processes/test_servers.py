"""Real servers beside real workers: killed in a swap, rolled back during an update, corrected during a claim."""

import signal
import threading
import time
from typing import Any

import httpx
import pytest

from app.storage.claims import Claim
from app.storage.states import ArtifactKind
from app.storage.tables import Version
from app.storage.weights import WeightStore
from tests.app.storage.stores import Stores
from tests.processes import school
from tests.processes.processes import Installation, wait_until

pytestmark = pytest.mark.slow


def predict(http: httpx.Client, *rows: list[float]) -> dict[str, Any]:
    answer = http.post("/v1/models/tiny/predict", json={"inputs": [{"features": row} for row in rows]})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def labels(http: httpx.Client) -> list[str]:
    answers = predict(http, [0.0] * school.SIZE, [10.0] * school.SIZE)["predictions"]
    return [answer["label"] for answer in answers]


@pytest.mark.parametrize("point", ["before_swap", "during_swap", "after_swap"])
def test_a_server_killed_in_a_swap_serves_what_is_live_when_it_is_back(
    installation: Installation, stores: Stores, point: str
) -> None:
    model = school.create(stores)
    with installation.running_server(KILL_AT=point) as (server, _), installation.process("worker") as worker:
        acknowledged = school.post(stores, model, school.samples(32))
        wait_until(lambda: server.exit_code is not None, f"the server dies {point}")
        assert server.exit_code == -signal.SIGKILL
        wait_until(lambda: school.settled(stores, model), "learning goes on without a server")
        live = stores.registry.live(model.id)
        with installation.server() as http:
            assert predict(http, [0.0] * school.SIZE)["version"] == live.version.number
            assert labels(http) == ["low", "high"]
        assert worker.stop() == 0
    school.check_nothing_lost(stores, model, acknowledged, WeightStore(installation.folder / "weights"))


def test_a_rollback_during_an_update_wins_and_the_update_publishes_nothing(
    installation: Installation, stores: Stores
) -> None:
    model = school.create(stores)
    acknowledged = school.post(stores, model, school.samples(32))
    with installation.server() as http, installation.process("worker") as worker:
        wait_until(lambda: school.settled(stores, model), "the first round ends")
        long = {"early_stopping": {"passes": 1000, "patience": 100}}
        assert http.patch("/v1/models/tiny", json={"recipe": long}).status_code == 200
        acknowledged += school.post(stores, model, school.samples(400, seed=1))
        wait_until(lambda: school.states(stores, model)["claimed"] > 0, "the second update runs")
        answer = http.post("/v1/models/tiny/rollback", json={"reason": "looks bad", "pin": True}).json()
        assert (answer["live"], answer["stragglers"]) == (1, [])
        assert predict(http, [0.0] * school.SIZE)["version"] == 1
        wait_until(lambda: school.states(stores, model)["claimed"] == 0, "the update lets go")
        assert worker.stop() == 0
        assert stores.registry.live(model.id).version.number == 1
    states = school.states(stores, model)
    assert (states["quarantined"], states["queued"]) == (32, 400)
    school.check_nothing_lost(stores, model, acknowledged, WeightStore(installation.folder / "weights"))


def test_a_label_corrected_during_its_claim_is_learned_with_the_new_label_next(
    installation: Installation, stores: Stores
) -> None:
    model = school.create(stores, early_stopping={"passes": 300, "patience": 50})
    with installation.server() as http, installation.process("worker") as worker:
        acknowledged = school.post(stores, model, school.samples(200))
        wait_until(lambda: school.states(stores, model)["claimed"] > 0, "the update runs")
        wrong = acknowledged[0]
        assert http.patch(f"/v1/models/tiny/samples/{wrong}", json={"label": "high"}).status_code == 200
        short = {"early_stopping": {"passes": 2}}
        assert http.patch("/v1/models/tiny", json={"recipe": short}).status_code == 200
        wait_until(lambda: school.settled(stores, model), "the correction is learned too")
        receipt = http.get(f"/v1/models/tiny/samples/{wrong}").json()
        assert (receipt["label"], receipt["state"] in ("learned", "held_out")) == ("high", True)
        assert worker.stop() == 0
    school.check_nothing_lost(stores, model, acknowledged, WeightStore(installation.folder / "weights"))


def test_a_flipped_byte_and_a_missing_file_are_refused_and_the_last_good_ancestor_answers(
    installation: Installation, stores: Stores
) -> None:
    model = school.create(stores)
    school.post(stores, model, school.samples(32))
    with installation.process("worker") as worker:
        wait_until(lambda: school.settled(stores, model), "the first round ends")
        assert worker.stop() == 0
    live = stores.registry.live(model.id).version
    file = next((installation.folder / "weights").glob(f"*/{live.id}.safetensors"))
    good = file.read_bytes()
    for damage in (good[:100] + bytes([good[100] ^ 1]) + good[101:], None):
        if damage is None:
            file.unlink()
        else:
            file.write_bytes(damage)
        with installation.server() as http:
            assert predict(http, [0.0] * school.SIZE)["version"] < live.number
            assert "tiny" in http.get("/readyz").text
    file.write_bytes(good)
    with installation.server() as http:
        assert predict(http, [0.0] * school.SIZE)["version"] == live.number


def _publish_copy(stores: Stores, claim: Claim, weights: WeightStore, source: Version) -> None:
    outcome = stores.outcome(claim)
    data = weights.read(source.id, stores.registry.artifacts(source.id)[ArtifactKind.WEIGHTS])
    file = weights.write(outcome.version_id, ArtifactKind.WEIGHTS, data)
    stores.queue.commit(claim, type(outcome)(**{**vars(outcome), "weights": file}))


def test_swaps_and_rollbacks_under_load_fail_no_prediction_and_mix_no_versions(
    installation: Installation, stores: Stores
) -> None:
    model = school.create(stores)
    school.post(stores, model, school.samples(32))
    with installation.process("worker") as worker:
        wait_until(lambda: school.settled(stores, model), "the first round ends")
        assert worker.stop() == 0
    source = stores.registry.live(model.id).version
    weights = WeightStore(installation.folder / "weights")
    answers: list[tuple[float, float, int]] = []
    failures: list[str] = []
    done = threading.Event()
    with installation.server() as http:

        def ask() -> None:
            with httpx.Client(base_url=http.base_url, headers=http.headers, timeout=30) as mine:
                while not done.is_set():
                    start = time.time()
                    answer = mine.post("/v1/models/tiny/predict", json={"inputs": [{"features": [1.0] * school.SIZE}]})
                    if answer.status_code != 200:
                        failures.append(answer.text)
                        continue
                    answers.append((start, time.time(), answer.json()["version"]))

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for one in clients:
            one.start()
        for turn in range(8):
            school.post(stores, model, school.samples(2, seed=100 + turn))
            claim = stores.claim(model)
            _publish_copy(stores, claim, weights, source)
            epoch = stores.registry.live(model.id).epoch
            wait_until(lambda epoch=epoch: _served(stores, model.id, epoch), "the server follows")  # type: ignore[misc]
            if turn % 3 == 2:
                assert http.post("/v1/models/tiny/rollback", json={}).json()["stragglers"] == []
        done.set()
        for one in clients:
            one.join()
    assert failures == []
    times: dict[int, list[tuple[float, float]]] = {}
    promotions = stores.registry.promotions(model.id, 100)[::-1]
    numbers = {version.id: version.number for version in stores.registry.versions(model.id, None, 100)}
    for promotion, following in zip(promotions, [*promotions[1:], None], strict=True):
        end = following.at.timestamp() if following else float("inf")
        times.setdefault(numbers[promotion.version_id], []).append((promotion.at.timestamp(), end))
    for start, end, version in answers:
        live = times[version]
        assert any(since <= end and until >= start - 1.0 for since, until in live), (start, end, version, live)
    assert len({version for _, _, version in answers}) >= 6


def _served(stores: Stores, model_id: int, epoch: int) -> bool:
    return any(state.epoch >= epoch for state in stores.roster.fresh(model_id))
