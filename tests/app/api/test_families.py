"""Asking a family: one request, one pass, an answer of each member."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from torch import Tensor

from app.batching import Batching
from app.serving.execution import Execution

FEATURES = {"features": [5.1, 3.5, 1.4, 0.2]}


@pytest.fixture
def family(service: Any) -> Any:
    """Two models on the backbone that their spec describes."""
    service.create("breeds", family="animals", recipe="frozen-backbone")
    service.create("moods", family="animals", recipe="frozen-backbone", labels=["calm", "cross"])
    return service


def test_every_input_is_answered_by_every_member_in_one_pass(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backbones = {family.parts.live_models.get(name).predictor().backbone for name in ("breeds", "moods")}
    assert len(backbones) == 1
    runs: list[int] = []
    run = Execution.__call__

    def noting(self: Execution, stacked: Tensor, normalised: Any) -> Tensor:
        runs.append(len(stacked))
        return run(self, stacked, normalised)

    monkeypatch.setattr(Execution, "__call__", noting)

    answer = family.post("/v1/families/animals/predict", json={"inputs": [FEATURES] * 3, "top_k": 2})

    assert answer.status_code == 200, answer.text
    assert runs == [3]
    body = answer.json()
    assert (body["family"], body["versions"]) == ("animals", {"breeds": 1, "moods": 1})
    assert [set(one) for one in body["predictions"]] == [{"breeds", "moods"}] * 3
    assert {one["label"] for one in (body["predictions"][0]["moods"], *body["predictions"][0]["moods"]["top"])} <= {
        "calm",
        "cross",
    }
    assert len(body["predictions"][0]["breeds"]["top"]) == 2


def test_a_member_says_in_the_family_what_it_says_alone(family: Any) -> None:
    alone = family.post("/v1/models/moods/predict", json={"inputs": [FEATURES]}).json()["predictions"][0]
    together = family.post("/v1/families/animals/predict", json={"inputs": [FEATURES]}).json()["predictions"][0]

    assert together["moods"]["top"] == alone["top"]


def test_a_label_by_the_id_of_a_member_s_prediction_reaches_that_member(family: Any) -> None:
    answer = family.post("/v1/families/animals/predict", json={"inputs": [FEATURES]}).json()["predictions"][0]
    moods = answer["moods"]["prediction_id"]

    shown = family.get(f"/v1/models/moods/predictions/{moods}")
    posted = family.post("/v1/models/moods/samples", json={"samples": [{"prediction_id": moods, "label": "cross"}]})

    assert shown.json()["label"] == answer["moods"]["label"]
    assert posted.status_code in (200, 201, 202), posted.text
    assert family.get(f"/v1/models/breeds/predictions/{moods}").status_code == 404


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_a_family_takes_every_form_that_a_model_takes(service: Any, picture: bytes, picture64: str) -> None:
    shape = {"kind": "image", "size": 16, "channels": 3}
    for name in ("cats", "dogs"):
        service.create(name, input=shape, family="pets", recipe="frozen-backbone")

    body = service.post("/v1/families/pets/predict", content=picture, headers={"Content-Type": "image/png"})
    form = service.post("/v1/families/pets/predict", files=[("file", ("a.png", picture)), ("file", ("b.png", picture))])
    json = service.post("/v1/families/pets/predict", json={"inputs": [{"image": picture64}]})

    assert [one.status_code for one in (body, form, json)] == [200, 200, 200]
    assert [len(one.json()["predictions"]) for one in (body, form, json)] == [1, 2, 1]


def test_what_is_wrong_is_said_as_it_is_for_one_model(family: Any, picture: bytes) -> None:
    def ask(**more: Any) -> tuple[int, str]:
        answer = family.post("/v1/families/animals/predict", **more)
        return answer.status_code, answer.json()["detail"]

    assert family.post("/v1/families/plants/predict", json={"inputs": [FEATURES]}).status_code == 404
    assert ask(json={"inputs": [{"features": [1.0]}]})[1].startswith("inputs[0]: Expected 4 numbers")
    assert ask(content=picture, headers={"Content-Type": "image/png"})[1].startswith("inputs[0]: Expected 'features'")
    assert ask(content=b"x", headers={"Content-Type": "text/plain"})[0] == 415


def test_no_more_inputs_are_taken_than_the_familys_queue_has_room_for(start: Any) -> None:
    service = start(inflight_limit=1)
    service.create("breeds", family="animals", recipe="frozen-backbone")
    batcher = service.parts.batcher
    batcher.configure("family animals", Batching(window_ms=10_000, queue_items=1))
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(service.post, "/v1/families/animals/predict", json={"inputs": [FEATURES]})
        while not batcher.inflight:
            assert not waiting.done()
        answer = service.post("/v1/families/animals/predict", json={"inputs": [FEATURES]})
        batcher.configure("family animals", Batching())

        assert answer.status_code == 429, answer.text
        assert "retry-after" in answer.headers
        assert waiting.result(20).status_code == 200
