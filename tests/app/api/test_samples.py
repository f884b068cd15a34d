"""Teaching: what is accepted is stored, what is not is named, and one never sinks the other."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils import uuid7

SAMPLES = "/v1/models/iris/samples"
NDJSON = {"Content-Type": "application/x-ndjson"}


def item(label: str = "a", first: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"label": label, "features": [first, 2.0, 3.0, 4.0], **more}


def test_one_bad_item_never_sinks_the_rest(service: Any) -> None:
    service.create()

    answer = service.post(
        SAMPLES,
        json={"samples": [item(), {"label": "a"}, item(first=2.0), item(features=[1.0]), item(colour="red"), 5]},
    )

    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert (body["accepted"], body["duplicates"], body["truncated"]) == (2, 0, False)
    assert [(one["index"], one["code"]) for one in body["rejected"]] == [
        (1, "no_input"),
        (3, "wrong_size"),
        (4, "invalid_sample"),
        (5, "invalid_sample"),
    ]
    assert [(one["index"], one["state"]) for one in body["samples"]] == [(0, "queued"), (2, "queued")]
    assert all(UUID(one["id"]).version == 7 for one in body["samples"])


def test_when_no_item_can_be_used_the_answer_says_so(service: Any) -> None:
    service.create()

    answer = service.post(SAMPLES, json={"samples": [{"label": "a"}]})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["accepted"], answer.json()["rejected"][0]["code"]) == (0, "no_input")


def test_the_same_id_twice_is_one_sample_and_with_another_body_a_conflict(service: Any) -> None:
    service.create()
    first = service.post(SAMPLES, json={"samples": [item(id="x")]}).json()

    again = service.post(SAMPLES, json={"samples": [item(id="x")]})
    other = service.post(SAMPLES, json={"samples": [item(id="x", first=9.0)]})

    assert (again.json()["accepted"], again.json()["duplicates"]) == (0, 1)
    assert again.json()["samples"][0]["id"] == first["samples"][0]["id"]
    assert other.status_code == 202
    assert other.json()["rejected"][0]["code"] == "id_conflict"


def test_a_stream_of_lines_is_committed_in_groups(service: Any) -> None:
    service.create()
    lines = [json.dumps(item(first=float(n), id=f"row-{n}")) for n in range(1300)]
    lines.insert(3, "{broken")
    lines.insert(7, "")

    answer = service.post(SAMPLES, content="\n".join(lines), headers=NDJSON)

    assert answer.status_code == 202, answer.text
    assert answer.json()["accepted"] == 1300
    assert [(one["index"], one["code"]) for one in answer.json()["rejected"]] == [(3, "invalid_json")]
    assert service.get("/v1/models/iris").json()["queue"]["queued"] == 1300


def test_lines_may_be_cut_anywhere(service: Any) -> None:
    service.create()
    whole = "\r\n".join(json.dumps(item(first=float(n), label="ä" if n % 2 else "a")) for n in range(5)).encode()

    async def dribble() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), 7):
            yield whole[start : start + 7]

    answer = service.post(SAMPLES, content=dribble(), headers=NDJSON)

    assert answer.json()["accepted"] == 5


def test_a_queue_that_fills_up_within_a_stream_says_where_to_go_on(start: Any) -> None:
    service = start(queue_limit=700)
    service.create()
    lines = [json.dumps(item(first=float(n))) for n in range(1500)]

    answer = service.post(SAMPLES, content="\n".join(lines), headers=NDJSON)

    assert answer.status_code == 429, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["accepted"] == answer.json()["next_line"] == 512
    assert service.get("/v1/models/iris").json()["queue"]["queued"] == 512


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_a_form_pairs_files_with_labels(service: Any, picture: bytes) -> None:
    service.create("pets", input={"kind": "image", "size": 16, "channels": 3}, labels=["cat", "dog"])
    files = [("file", ("a.png", picture)), ("file", ("b.png", picture + b""))]

    answer = service.post("/v1/models/pets/samples", files=files, data={"label": ["cat", "dog"], "source": "anna"})
    unpaired = service.post("/v1/models/pets/samples", files=files, data={"label": ["cat"]})
    foreign = service.post("/v1/models/pets/samples", files=files, data={"label": ["cat", "dog"], "path": "/etc"})

    assert answer.status_code == 202, answer.text
    assert answer.json()["accepted"] == 2
    assert unpaired.json()["code"] == "unpaired"
    assert foreign.json()["code"] == "unknown_field"


def test_a_sample_of_the_test_split_is_held_out_and_says_so(service: Any) -> None:
    service.create()

    answer = service.post(SAMPLES, json={"samples": [item(split="test"), item(first=2.0, split=None)]})

    test, other = [service.get(f"{SAMPLES}/{one['id']}").json() for one in answer.json()["samples"]]
    assert (test["state"], test["split"], other["split"]) == ("queued", "test", None)
    service.publish("iris", winner=0)
    test, other = [service.get(f"{SAMPLES}/{one['id']}").json() for one in answer.json()["samples"]]
    assert (test["state"], test["split"]) == ("held_out", "test")
    assert (other["state"], other["split"]) == ("learned", None)


def test_lines_name_a_split_and_the_same_id_for_another_split_is_a_conflict(service: Any) -> None:
    service.create()
    lines = [json.dumps(item(id="x", split="test")), json.dumps(item(id="x")), json.dumps(item(split="train"))]

    answer = service.post(SAMPLES, content="\n".join(lines), headers=NDJSON).json()

    assert answer["accepted"] == 1
    assert [one["code"] for one in answer["rejected"]] == ["id_conflict", "invalid_sample"]
    assert answer["rejected"][1]["detail"] == "split: expected 'test'; got a text"
    assert service.get(f"{SAMPLES}/{answer['samples'][0]['id']}").json()["split"] == "test"


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_a_form_may_name_a_split_for_all_its_files(service: Any, picture: bytes) -> None:
    service.create("pets", input={"kind": "image", "size": 16, "channels": 3}, labels=["cat", "dog"])
    files = [("file", ("a.png", picture)), ("file", ("b.png", picture))]

    answer = service.post("/v1/models/pets/samples", files=files, data={"label": ["cat", "cat"], "split": "test"})
    wrong = service.post("/v1/models/pets/samples", files=files, data={"label": ["cat", "cat"], "split": "holdout"})

    assert answer.status_code == 202, answer.text
    receipts = service.get("/v1/models/pets/samples").json()["samples"]
    assert [one["split"] for one in receipts] == ["test", "test"]
    assert wrong.status_code == 422
    assert wrong.json()["rejected"][0]["code"] == "invalid_sample"


def test_a_prediction_is_labelled_by_its_id_alone_even_before_it_is_written(service: Any) -> None:
    service.create()
    asked = service.post("/v1/models/iris/predict", json={"inputs": [{"features": [1.0, 2.0, 3.0, 4.0]}]}).json()
    prediction = asked["predictions"][0]["prediction_id"]
    fresh = service.post(SAMPLES, json={"samples": [{"label": "a", "prediction_id": prediction}]})
    assert service.parts.writer.flush()
    written = service.post(SAMPLES, json={"samples": [{"label": "a", "prediction_id": prediction, "id": "2nd"}]})

    assert fresh.status_code == written.status_code == 202, fresh.text
    receipt = service.get(f"{SAMPLES}/{fresh.json()['samples'][0]['id']}").json()
    assert receipt["prediction_id"] == prediction


def test_a_prediction_that_was_let_go_asks_for_the_input(service: Any) -> None:
    service.create()
    old = datetime.now(UTC) - timedelta(days=90)
    expired = str(UUID(int=(int(old.timestamp() * 1000) << 80) | (UUID(str(uuid7())).int & ((1 << 80) - 1))))

    one = service.post(SAMPLES, json={"samples": [{"label": "a", "prediction_id": expired}]})
    mixed = service.post(SAMPLES, json={"samples": [{"label": "a", "prediction_id": expired}, item()]})
    looked = service.get(f"/v1/models/iris/predictions/{expired}")

    assert one.status_code == 410, one.text
    assert mixed.status_code == 202
    assert mixed.json()["rejected"][0]["code"] == "prediction_expired"
    assert looked.status_code == 410
    assert "Send the input" in looked.json()["detail"]


def test_a_label_nobody_used_waits_and_says_so(service: Any) -> None:
    service.create(labels=["cat", "dog"])

    answer = service.post(SAMPLES, json={"samples": [item("catt")]})

    assert answer.json()["accepted"] == 1
    assert "cat" in answer.json()["samples"][0]["note"]
    assert service.get("/v1/models/iris").json()["proposed_labels"] == ["catt"]


def test_a_label_nobody_used_is_refused_where_the_recipe_says_so(service: Any) -> None:
    service.create(recipe={"new_classes": {"policy": "refuse"}})

    answer = service.post(SAMPLES, json={"samples": [item("z")]})

    assert answer.status_code == 422
    assert answer.json()["rejected"][0]["code"] == "unknown_label"


def test_receipts_are_found_by_what_they_say(service: Any, keys: dict[str, str]) -> None:
    service.create()
    service.ask("POST", SAMPLES, key=keys["label"], json={"samples": [item("a", float(n)) for n in range(3)]})
    service.post(SAMPLES, json={"samples": [item("b", 7.0, source="anna", why="audit")]})

    page = service.get(f"{SAMPLES}?limit=3").json()
    rest = service.get(f"{SAMPLES}?limit=3&cursor={page['next_cursor']}").json()

    assert [len(page["samples"]), len(rest["samples"]), rest["next_cursor"]] == [3, 1, None]
    assert page["samples"][0]["source"] == "anna"
    assert {one["source"] for one in page["samples"][1:]} == {"label"}
    assert [one["label"] for one in service.get(f"{SAMPLES}?label=b").json()["samples"]] == ["b"]
    assert len(service.get(f"{SAMPLES}?source=anna&state=queued").json()["samples"]) == 1
    assert service.get(f"{SAMPLES}?version=1").json()["samples"] == []


def test_a_label_is_corrected_and_a_sample_withdrawn(service: Any) -> None:
    service.create()
    sample = service.post(SAMPLES, json={"samples": [item("a")]}).json()["samples"][0]["id"]

    corrected = service.ask("PATCH", f"{SAMPLES}/{sample}", json={"label": "b"})
    withdrawn = service.ask("DELETE", f"{SAMPLES}/{sample}")

    assert (corrected.status_code, corrected.json()["label"]) == (200, "b")
    assert len(corrected.json()["history"]) == 2
    assert (withdrawn.status_code, withdrawn.json()["state"]) == (200, "withdrawn")
    unknown = service.ask("PATCH", f"{SAMPLES}/{uuid7()}", json={"label": "b"})
    assert unknown.status_code == 404


def test_a_sample_of_one_model_is_not_seen_through_another(service: Any) -> None:
    service.create()
    service.create("other")
    sample = service.post(SAMPLES, json={"samples": [item()]}).json()["samples"][0]["id"]

    assert service.get(f"/v1/models/other/samples/{sample}").status_code == 404
    assert service.ask("DELETE", f"/v1/models/other/samples/{sample}").status_code == 404
