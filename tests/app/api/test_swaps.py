"""A swap loses no request and mixes no versions; a rollback reads nothing; what is broken is not served."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PREDICT = "/v1/models/iris/predict"
FEATURES = {"inputs": [{"features": [1.0, 2.0, 3.0, 4.0]}] * 4}
LABELS = "abc"


def files_of(service: Any, version_id: str) -> list[Path]:
    return [path for path in service.settings.weights_dir.rglob("*") if path.is_file() and version_id in str(path)]


def test_no_request_fails_and_no_answer_mixes_versions_while_versions_are_swapped(service: Any) -> None:
    service.create()
    winners: dict[int, int] = {}
    stop = threading.Event()
    answers: list[tuple[int, int, set[str]]] = []

    def ask() -> None:
        while not stop.is_set():
            answer = service.post(PREDICT, json=FEATURES)
            body = answer.json()
            labels = {one["label"] for one in body.get("predictions", ())}
            answers.append((answer.status_code, body.get("version", 0), labels))

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask) for _ in range(4)]
        try:
            for number in range(2, 14):
                winners[number] = number % 3
                service.publish("iris", winner=number % 3)
                assert service.parts.refresher.wait_for(1, number, 10)
            assert service.post("/v1/models/iris/rollback").json()["live"] == 12
        finally:
            stop.set()
        for one in asking:
            one.result(20)

    assert {status for status, _, _ in answers} == {200}
    for _, version, labels in answers:
        if version > 1:
            assert labels == {LABELS[winners[version]]}
    assert len({version for _, version, _ in answers}) > 3


def test_a_rollback_to_a_warm_version_reads_nothing(service: Any) -> None:
    service.create()
    first = service.publish("iris", winner=0)
    assert service.parts.refresher.wait_for(1, 2, 5)
    before = service.parts.live_models.get("iris").current.predictor
    service.publish("iris", winner=1)
    assert service.parts.refresher.wait_for(1, 3, 5)
    for path in files_of(service, first.id):
        path.unlink()

    moved = service.post("/v1/models/iris/rollback").json()

    assert (moved["live"], moved["stragglers"]) == (2, [])
    assert service.parts.live_models.get("iris").current.predictor is before
    assert service.post(PREDICT, json=FEATURES).json()["version"] == 2


def test_what_was_asked_is_there_for_the_next_version_to_be_warmed_up_with(service: Any) -> None:
    service.create()
    service.publish("iris", winner=0)
    assert service.parts.refresher.wait_for(1, 2, 5)

    assert service.post(PREDICT, json=FEATURES).status_code == 200
    service.publish("iris", winner=1)
    assert service.parts.refresher.wait_for(1, 3, 5)

    recent = service.parts.live_models.get("iris").recent
    assert recent.sizes(3) == [4]  # what warms up is not counted
    assert [item.tolist() for item in recent.items()] == [[1.0, 2.0, 3.0, 4.0]]


def test_a_broken_file_leaves_the_old_version_and_tells_why(service: Any) -> None:
    service.create()
    service.publish("iris", winner=0)
    assert service.parts.refresher.wait_for(1, 2, 5)

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))

    service.publish("iris", winner=1, damage=flip)

    assert not service.parts.refresher.wait_for(1, 3, 0.5)
    assert service.post(PREDICT, json=FEATURES).json()["version"] == 2
    (state,) = service.parts.roster.fresh(1)
    assert state.epoch == 2
    assert "Version 3 could not be loaded" in state.error
    asked = service.post(f"{PREDICT}?version=3", json=FEATURES)
    assert asked.status_code == 500
    service.post("/v1/models/iris/rollback")
    assert service.parts.live_models.get("iris").error is None


def test_a_missing_file_leaves_the_old_version(service: Any) -> None:
    service.create()

    service.publish("iris", winner=1, damage=Path.unlink)

    assert not service.parts.refresher.wait_for(1, 2, 0.3)
    assert service.post(PREDICT, json=FEATURES).json()["version"] == 1


def test_a_version_that_is_no_longer_needed_leaves_the_memory(start: Any) -> None:
    service = start(warm_versions=1)
    service.create()
    kept = []
    for number in range(2, 6):
        service.publish("iris", winner=number % 3)
        assert service.parts.refresher.wait_for(1, number, 5)
        assert service.post(PREDICT, json=FEATURES).json()["version"] == number
        kept.append(weakref.ref(service.parts.live_models.get("iris").current.predictor))

    gc.collect()

    assert [one() is not None for one in kept] == [False, False, True, True]


def test_a_restart_serves_what_was_live(start: Any) -> None:
    first = start()
    first.create()
    first.publish("iris", winner=2)

    second = start()
    assert second.parts.refresher.wait_for(1, 2, 5)

    answer = second.post(PREDICT, json=FEATURES).json()
    assert (answer["version"], answer["predictions"][0]["label"]) == (2, "c")


def test_what_was_answered_is_written_when_the_server_stops(start: Any, make_settings: Any, portal: Any) -> None:
    service = start()
    service.create()
    answer = service.post(PREDICT, json=FEATURES).json()

    service.parts.writer.stop()

    for one in answer["predictions"]:
        assert service.parts.predictions.get(1, one["prediction_id"]).version == 1
