"""Asking a model, in each of the forms a question may have."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from uuid_utils import uuid7

from app.storage.predictions import PredictionRecord

FEATURES = [5.1, 3.5, 1.4, 0.2]


def test_inputs_are_answered_in_their_order_by_one_version(service: Any) -> None:
    service.create()
    service.publish("iris", winner=1)
    assert service.post("/v1/models/iris/learning/pin").status_code == 200
    service.parts.refresher.wait_for(1, 2, 5)

    answer = service.post("/v1/models/iris/predict", json={"inputs": [{"features": FEATURES}] * 3, "top_k": 2})

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model"], body["version"], answer.headers["x-model-version"]) == ("iris", 2, "2")
    assert [one["label"] for one in body["predictions"]] == ["b", "b", "b"]
    assert [len(one["top"]) for one in body["predictions"]] == [2, 2, 2]
    assert len({one["prediction_id"] for one in body["predictions"]}) == 3
    assert body["predictions"][0]["ask_for_label"] is False


def test_a_model_without_classes_answers_no_label(service: Any) -> None:
    service.create("empty", labels=[])

    answer = service.post("/v1/models/empty/predict", json={"inputs": [{"features": FEATURES}]})

    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["label"] is None
    assert answer.json()["predictions"][0]["top"] == []


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_a_picture_comes_as_a_body_as_a_file_or_in_base64(service: Any, picture: bytes, picture64: str) -> None:
    service.create("pets", input={"kind": "image", "size": 16, "channels": 3}, labels=["cat", "dog"])

    body = service.post("/v1/models/pets/predict", content=picture, headers={"Content-Type": "image/png"})
    form = service.post("/v1/models/pets/predict", files=[("file", ("a.png", picture)), ("file", ("b.png", picture))])
    json = service.post("/v1/models/pets/predict", json={"inputs": [{"image": picture64}]})

    assert [body.status_code, form.status_code, json.status_code] == [200, 200, 200]
    assert [len(one.json()["predictions"]) for one in (body, form, json)] == [1, 2, 1]
    labels = {one["label"] for answer in (body, form, json) for one in answer.json()["predictions"]}
    assert len(labels) == 1


def test_a_version_that_is_not_live_answers_by_its_number(service: Any) -> None:
    service.create()
    service.publish("iris", winner=1)
    service.publish("iris", winner=2)
    service.parts.refresher.wait_for(1, 3, 5)

    answer = service.post("/v1/models/iris/predict?version=2", json={"inputs": [{"features": FEATURES}]})
    unknown = service.post("/v1/models/iris/predict?version=9", json={"inputs": [{"features": FEATURES}]})

    assert answer.json()["version"] == 2
    assert answer.json()["predictions"][0]["label"] == "b"
    assert unknown.status_code == 404


def test_what_was_predicted_is_known_at_once_and_after_it_was_written(service: Any) -> None:
    service.create()
    asked = service.post("/v1/models/iris/predict", json={"inputs": [{"features": FEATURES}]}).json()
    prediction = asked["predictions"][0]["prediction_id"]

    before = service.get(f"/v1/models/iris/predictions/{prediction}")
    assert service.parts.writer.flush()
    after = service.get(f"/v1/models/iris/predictions/{prediction}")

    assert before.status_code == after.status_code == 200
    assert before.json()["label"] == after.json()["label"] == asked["predictions"][0]["label"]
    assert after.json()["version"] == 1
    other = service.create("other") and service.get(f"/v1/models/other/predictions/{prediction}")
    assert other.status_code == 404


def test_a_score_that_is_no_number_is_shown_as_null(service: Any) -> None:
    service.create()
    model = service.parts.registry.model("iris")
    odd = [("a", float("nan")), ("b", float("inf")), ("c", 0.5)]
    record = PredictionRecord(str(uuid7()), model.id, 1, "a", float("nan"), odd, b"", datetime.now(UTC))
    service.parts.writer.write([record])

    before = service.get(f"/v1/models/iris/predictions/{record.id}")
    assert service.parts.writer.flush()
    after = service.get(f"/v1/models/iris/predictions/{record.id}")

    assert before.status_code == after.status_code == 200, before.text
    assert before.json()["score"] is None
    assert [one["score"] for one in before.json()["top"]] == [None, None, 0.5]
    assert after.json()["top"] == before.json()["top"]


def ask(service: Any, path: str = "/v1/models/iris/predict") -> httpx.Response:
    answer: httpx.Response = service.post(path, json={"inputs": [{"features": FEATURES}]})
    return answer


def test_too_many_inputs_at_a_time_are_turned_away_with_a_time_to_come_back(start: Any) -> None:
    service = start(inflight_limit=1)
    service.create()
    batcher = service.parts.batcher
    service.join("iris", window_ms=10_000, queue_items=1)
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(ask, service)
        while not batcher.inflight:
            assert not waiting.done()
        answer = ask(service)
        service.join("iris", queue_items=1)

        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert waiting.result(20).status_code == 200
    assert ask(service).status_code == 200


def test_a_prediction_that_takes_too_long_is_given_up(start: Any) -> None:
    service = start(request_seconds=0.05)
    service.create()
    service.join("iris", window_ms=10_000)

    answer = ask(service)

    assert answer.status_code == 504
    assert answer.headers["content-type"] == "application/problem+json"


def test_figures_tell_versions_predictions_and_swaps(service: Any) -> None:
    service.create()
    service.publish("iris", winner=1)
    service.parts.refresher.wait_for(1, 2, 5)
    service.post("/v1/models/iris/predict", json={"inputs": [{"features": FEATURES}] * 2})

    text = service.get("/metrics", key=None).text

    assert 'perennial_predictions_total{model="iris",version="2"} 2.0' in text
    assert 'perennial_live_version{model="iris"} 2.0' in text
    assert 'perennial_swaps{model="iris"} 2.0' in text
