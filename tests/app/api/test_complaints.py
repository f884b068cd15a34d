"""What is wrong in a request is said in words that tell what would be right."""

from typing import Any

import pytest

INPUT = {"kind": "features", "size": 2}
CREATIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"input": INPUT}, "body.name", "missing"),
    ({"name": "My pets", "input": INPUT}, "body.name", "small letters, digits"),
    ({"name": "pets", "input": {"kind": "features", "size": "2"}}, "body.input.size", "got a text"),
    ({"name": "pets", "input": {"kind": "sound"}}, "body.input", "expected `kind` to be one of 'image', 'features'"),
    ({"name": "pets", "input": {"size": 2}}, "body.input", "expected a `kind`, one of 'image', 'features'"),
    ({"name": "pets", "input": INPUT, "recipe": {"optimiser": {}}}, "body.recipe.optimiser", "mean 'optimizer'?"),
    ({"name": "pets", "input": INPUT, "recipe": {"batch_size": 0}}, "body.recipe.batch_size", "got 0"),
    ({"name": "pets", "input": INPUT, "network": {"weights": "a.pth"}}, "body.network.weights", "`perennial weights"),
    ({"name": "pets", "input": INPUT, "labels": ["a", "a"]}, "body", "a label is listed twice"),
]


@pytest.mark.parametrize(("body", "where", "words"), CREATIONS, ids=[words for _, _, words in CREATIONS])
def test_a_wrong_creation_is_told_where_it_is_wrong_and_what_would_be_right(
    service: Any, body: dict[str, Any], where: str, words: str
) -> None:
    answer = service.post("/v1/models", json=body)

    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert detail.startswith(f"{where}: ")
    assert words in detail
    assert "Value error" not in detail


def test_a_change_of_the_recipe_names_the_fields_of_its_kind(service: Any) -> None:
    service.create()

    answer = service.ask("PATCH", "/v1/models/iris", json={"recipe": {"optimizer": {"kind": "adam", "momentum": 0.9}}})

    assert answer.json()["detail"] == (
        "body.recipe.optimizer.momentum: there is no such field; expected backbone_lr, kind, lr, weight_decay"
    )


def test_paths_and_queries_are_told_alike(service: Any) -> None:
    service.create()

    receipt = service.get("/v1/models/iris/samples/17").json()["detail"]
    state = service.get("/v1/models/iris/samples?state=lost").json()["detail"]
    model = service.get("/v1/models/..%5c").json()["detail"]

    assert receipt.startswith("path.sample: expected an id as this API gives it")
    assert state.startswith("query.state: expected 'queued', 'claimed'")
    assert state.endswith("; got a text")
    assert "small letters" in model


def test_wrong_samples_are_listed_in_their_order_and_name_what_they_lack(service: Any) -> None:
    service.create()
    good = [1.0, 2.0, 3.0, 4.0]
    samples = [
        {"features": good[:3], "label": "a"},
        {"features": good, "lable": "a"},
        {"features": good, "label": 7},
    ]

    rejected = service.post("/v1/models/iris/samples", json={"samples": samples}).json()["rejected"]

    assert [one["index"] for one in rejected] == [0, 1, 2]
    assert rejected[1]["detail"] == "label: it is missing, and must be given"
    assert rejected[2]["detail"] == "label: expected a valid string; got 7"


def test_a_key_that_is_not_valid_is_told_from_no_key(service: Any) -> None:
    none = service.get("/v1/models", key=None).json()
    wrong = service.get("/v1/models", key="prn_wrong").json()

    assert "needs a key" in none["detail"]
    assert "not valid here" in wrong["detail"]
    assert none["type"] == wrong["type"]
