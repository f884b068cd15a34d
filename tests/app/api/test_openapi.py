"""What /docs shows is what the API takes: each example of a request is sent, each answer's example is of its form."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from app.api.schemas import events, families, health, matrix, models, predict, recipes, samples, versions, wire
from app.api.security import PUBLIC
from app.api.v2 import schemas as v2

SCHEMAS = (events, families, health, matrix, models, predict, recipes, samples, v2, versions, wire)
FORMS = sorted(
    {
        one
        for module in SCHEMAS
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, BaseModel) and "json_schema_extra" in one.model_config
    },
    key=lambda form: form.__name__,
)


def request_examples(description: dict[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    """Method, path, media type and value of every example of a body."""
    for path, calls in description["paths"].items():
        for method, call in calls.items():
            for kind, body in call.get("requestBody", {}).get("content", {}).items():
                for example in body.get("examples", {}).values():
                    yield method.upper(), path, kind, example["value"]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_each_example_is_of_its_own_form(form: type[BaseModel]) -> None:
    extra = form.model_config["json_schema_extra"]
    assert isinstance(extra, dict)
    found = extra["examples"]
    assert isinstance(found, list)
    for one in found:
        form.model_validate_json(json.dumps(one))


def test_each_example_of_a_request_is_taken_by_the_api(service: Any) -> None:
    service.create("iris", labels=["setosa", "versicolor"])
    service.create("twin", family="animals", recipe="frozen-backbone")
    service.publish("iris", winner=0)
    service.publish("iris", winner=1)
    sample = service.post(
        "/v1/models/iris/samples", json={"samples": [{"features": [1, 2, 3, 4], "label": "setosa"}]}
    ).json()["samples"][0]["id"]
    description = service.get("/openapi.json").json()

    sent = 0
    for method, path, kind, value in request_examples(description):
        address = path.replace("{model}", "iris").replace("{version}", "2").replace("{sample}", sample)
        address = address.replace("{family}", "animals")
        if path == "/v1/models" and value.get("network", {}).get("weights") == "imagenet":
            value = {**value, "network": {**value["network"], "weights": None}}  # noqa: PLW2901  it would be fetched
        body = value if isinstance(value, str) else json.dumps(value)
        answer = service.ask(method, address, content=body, headers={"Content-Type": kind})
        # The model of the first example is there already, and the example's prediction was never made.
        assert answer.status_code < 300 or answer.status_code == 409, (method, path, value, answer.text)
        sent += 1
    assert sent >= 18


def test_the_description_asks_for_a_key_where_the_api_does(service: Any) -> None:
    description = service.get("/openapi.json").json()

    for path, calls in description["paths"].items():
        for call in calls.values():
            assert ("security" in call) == (path not in PUBLIC), path
            assert ("401" in call["responses"]) == (path not in PUBLIC), path
            assert call["summary"], path
