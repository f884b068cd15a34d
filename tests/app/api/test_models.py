"""Models, versions and the moves between them; what is written of it."""

from typing import Any

import pytest

from app.batching import Batching

FEATURES = {"inputs": [{"features": [1.0, 2.0, 3.0, 4.0]}]}


def test_a_new_model_is_live_and_answers_at_once(service: Any) -> None:
    answer = service.post("/v1/models", json={"name": "iris", "input": {"kind": "features", "size": 4}})

    assert answer.status_code == 201
    assert answer.headers["location"] == "/v1/models/iris"
    shown = answer.json()
    assert (shown["live"], shown["labels"], shown["pinned"], shown["learning"]) == (1, [], False, True)
    assert shown["network"]["architecture"] == "mlp"
    assert (shown["queue"], shown["accuracy"]) == ({"queued": 0, "oldest_seconds": None}, None)
    assert service.post("/v1/models/iris/predict", json=FEATURES).status_code == 200
    assert (
        service.post("/v1/models", json={"name": "iris", "input": {"kind": "features", "size": 4}}).status_code == 409
    )
    assert [one["name"] for one in service.get("/v1/models").json()["models"]] == ["iris"]


def test_a_recipe_is_changed_in_part_and_checked_as_a_whole(service: Any) -> None:
    before = service.create()["recipe"]

    changed = service.ask("PATCH", "/v1/models/iris", json={"recipe": {"optimizer": {"lr": 0.5}, "batch_size": 8}})
    other = service.ask("PATCH", "/v1/models/iris", json={"recipe": {"optimizer": {"kind": "adam"}}})
    wrong = service.ask("PATCH", "/v1/models/iris", json={"recipe": {"optimizer": {"momentum": 0.9}}})
    unknown = service.ask("PATCH", "/v1/models/iris", json={"recipe": {"learning_rate": 1}})

    assert changed.status_code == 200, changed.text
    assert changed.json()["recipe"] == {**before, "batch_size": 8, "optimizer": {**before["optimizer"], "lr": 0.5}}
    assert changed.json()["recipe_number"] == 2
    assert other.json()["recipe"]["optimizer"] == {
        "kind": "adam",
        "lr": 0.001,
        "backbone_lr": None,
        "weight_decay": 0.0,
    }
    assert (wrong.status_code, unknown.status_code) == (422, 422)
    assert service.get("/v1/models/iris").json()["recipe_number"] == 3


def test_a_change_that_names_a_recipe_starts_from_it_and_not_from_the_old_one(service: Any) -> None:
    service.create(recipe={"batch_size": 8, "holdout": 0.3})

    by_name = service.ask("PATCH", "/v1/models/iris", json={"recipe": "drift"})
    changed = service.ask(
        "PATCH", "/v1/models/iris", json={"recipe": {"based_on": "fine-tune", "optimizer": {"lr": 0.5}}}
    )
    further = service.ask("PATCH", "/v1/models/iris", json={"recipe": {"batch_size": 4}})

    assert by_name.status_code == 200, by_name.text
    named = {one["name"]: one["recipe"] for one in service.get("/v1/recipes").json()["recipes"]}
    assert by_name.json()["recipe"] == named["drift"]
    tuned = {**named["fine-tune"], "optimizer": {**named["fine-tune"]["optimizer"], "lr": 0.5}}
    assert changed.json()["recipe"] == tuned
    assert further.json()["recipe"] == {**tuned, "batch_size": 4}


@pytest.mark.parametrize(
    ("recipe", "detail"),
    [
        ({"augmentation": {"flip": True}}, "body: recipe.augmentation: crops and flips are for pictures"),
        (
            {"penalties": [{"kind": "l2_sp", "anchor": "pretrained"}]},
            "body: recipe.penalties: l2_sp with anchor 'pretrained' needs pretrained weights",
        ),
        ({"head": {"kind": "ridge"}, "trainable": "head"}, "body.recipe: penalties: a closed-form head with"),
        ("frozen", "body.recipe.based_on: expected 'frozen-backbone', 'from-scratch', 'drift' or 'fine-tune'"),
        ({"based_on": ["drift"]}, "body.recipe.based_on: expected 'frozen-backbone'"),
        (5, "body.recipe: expected an object; got 5"),
    ],
)
def test_a_change_that_does_not_fit_the_model_names_the_field_and_changes_nothing(
    service: Any, recipe: Any, detail: str
) -> None:
    service.create()

    answer = service.ask("PATCH", "/v1/models/iris", json={"recipe": recipe})

    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"].startswith(detail)
    assert service.get("/v1/models/iris").json()["recipe_number"] == 1


def test_a_model_is_created_with_a_recipe_of_that_name_and_the_names_are_spelled_out(service: Any) -> None:
    shown = service.create(recipe="frozen-backbone")

    answer = service.get("/v1/recipes").json()
    named = {one["name"]: one for one in answer["recipes"]}
    assert (answer["default"], answer["default_pretrained"]) == ("from-scratch", "frozen-backbone")
    assert list(named) == ["frozen-backbone", "from-scratch", "drift", "fine-tune"]
    assert shown["recipe"] == named["frozen-backbone"]["recipe"]
    assert named["frozen-backbone"]["differs"]["trainable"] == "head"
    assert all(one["about"].endswith(".") for one in named.values())


def test_versions_tell_where_they_come_from_and_how_they_were_judged(service: Any) -> None:
    service.create()
    service.publish("iris", winner=0)
    service.publish("iris", winner=1)

    page = service.get("/v1/models/iris/versions?limit=2").json()
    rest = service.get(f"/v1/models/iris/versions?cursor={page['next_cursor']}").json()
    one = service.get("/v1/models/iris/versions/2").json()

    assert [version["version"] for version in page["versions"] + rest["versions"]] == [3, 2, 1]
    assert [version["live"] for version in page["versions"]] == [True, False]
    assert (one["parent"], one["verdict"], one["reason"], one["files"]) == (1, "promoted", "test", "present")
    assert one["counts"] == {"learn": 1, "holdout": 0}
    assert one["digest"].startswith("sha256:")
    assert one["labels"] == ["a", "b", "c"]
    assert rest["versions"][0]["digest"] is None
    assert service.get("/v1/models/iris/versions/9").status_code == 404


def test_a_rollback_is_served_when_it_is_answered(service: Any) -> None:
    service.create()
    service.publish("iris", winner=0)
    service.publish("iris", winner=1)
    service.parts.refresher.wait_for(1, 3, 5)

    moved = service.post("/v1/models/iris/rollback", json={"reason": "worse"})

    assert moved.status_code == 200, moved.text
    body = moved.json()
    assert (body["live"], body["previous"], len(body["servers"]), body["stragglers"]) == (2, 3, 1, [])
    assert body["took_ms"] < 1000
    assert service.post("/v1/models/iris/predict", json=FEATURES).json()["version"] == 2
    forward = service.post("/v1/models/iris/versions/3/promote", json={"reason": "better after all"})
    assert (forward.status_code, forward.json()["live"]) == (200, 3)
    assert service.post("/v1/models/iris/predict", json=FEATURES).json()["version"] == 3
    assert service.post("/v1/models/iris/versions/3/promote").status_code == 409


def test_the_first_version_has_nothing_to_roll_back_to(service: Any) -> None:
    service.create()

    assert service.post("/v1/models/iris/rollback").status_code == 409


def test_a_server_that_does_not_follow_is_a_straggler(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.convergence.SERVERS_SECONDS", 0.2)
    service.create()
    service.publish("iris", winner=0)
    other = service.parts.roster.arrive("elsewhere", 4711)

    moved = service.post("/v1/models/iris/rollback", json={"to": 1}).json()

    assert [one["server"] for one in moved["stragglers"]] == [other]
    assert moved["live"] == 1


def test_learning_is_paused_and_promotions_are_held_and_it_is_written_down(service: Any) -> None:
    service.create()

    for step, shown in [
        ("pause", {"learning": False, "pinned": False}),
        ("pin", {"learning": False, "pinned": True}),
        ("resume", {"learning": True, "pinned": True}),
        ("unpin", {"learning": True, "pinned": False}),
        ("run", {"learning": True, "pinned": False}),
    ]:
        answer = service.post(f"/v1/models/iris/learning/{step}", json={"reason": f"try {step}"})
        assert answer.status_code == 200, answer.text
        assert {key: answer.json()[key] for key in shown} == shown

    events = service.get("/v1/events?model=iris&limit=5").json()["events"]
    assert [event["reason"] for event in events] == ["try run", "try unpin", "try resume", "try pin", "try pause"]
    assert {event["actor"] for event in events} == {"admin from settings"}
    assert service.get("/v1/events?limit=1").json()["next_cursor"] == str(events[0]["id"])


def test_an_update_is_asked_for_in_a_lane_that_the_recipe_has(service: Any) -> None:
    service.create(recipe="from-scratch")
    service.create("solved", recipe="frozen-backbone")
    service.create("both", recipe="fine-tune")

    def run(model: str, lane: str | None) -> Any:
        return service.post(f"/v1/models/{model}/learning/run", json={"reason": "now", "lane": lane})

    assert [run("both", lane).status_code for lane in ("fast", "slow", None)] == [200, 200, 200]
    assert [run("iris", lane).status_code for lane in ("slow", None)] == [200, 200]
    assert [run("solved", lane).status_code for lane in ("fast", None)] == [200, 200]
    for answer, words in [
        (run("iris", "fast"), "body.lane: the head is learned by gradient steps"),
        (run("solved", "slow"), "body.lane: the head is solved and all else is frozen"),
        (run("both", "quick"), "body.lane: expected 'fast' or 'slow'"),
    ]:
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"].startswith(words)
    events = service.get("/v1/events?model=both").json()["events"]
    asked = [event["detail"] for event in events if event["kind"] == "learning.requested"]
    assert asked == [{}, {"lane": "slow"}, {}]


def test_models_of_one_family_are_shown_together(service: Any) -> None:
    service.create("breeds", family="animals", recipe="frozen-backbone")
    service.create("moods", family="animals", recipe="frozen-backbone")
    alone = service.create("iris")

    families = service.get("/v1/families").json()["families"]
    family = service.get("/v1/families/animals").json()

    assert [(one["name"], one["members"]) for one in families] == [("animals", ["breeds", "moods"])]
    assert [(one["name"], one["family"]) for one in family["members"]] == [("breeds", "animals"), ("moods", "animals")]
    assert alone["family"] is None
    assert "GET /v1/families" in service.get("/v1/families/plants").json()["detail"]
    assert service.get("/v1/families/Plants").status_code == 422


def test_a_model_that_cannot_share_the_backbone_of_its_family_is_refused(service: Any) -> None:
    service.create("breeds", family="animals", recipe="frozen-backbone")
    body = {
        "name": "moods",
        "input": {"kind": "features", "size": 5},
        "recipe": "frozen-backbone",
        "family": "animals",
    }

    answer = service.post("/v1/models", json=body)

    assert answer.status_code == 409, answer.text
    assert "shares one backbone" in answer.json()["detail"]


def test_a_model_that_would_move_the_backbone_of_its_family_by_itself_is_refused(service: Any) -> None:
    def refused(answer: Any) -> str:
        assert answer.status_code == 422, answer.text
        detail: str = answer.json()["detail"]
        return detail

    body = {"name": "breeds", "input": {"kind": "features", "size": 4}, "family": "animals"}
    assert "recipe.head: models of a family share one backbone" in refused(service.post("/v1/models", json=body))
    service.create("breeds", family="animals", recipe="fine-tune")
    for recipe, words in [
        ("from-scratch", "recipe.head: models of a family"),
        ({"penalties": [{"kind": "ewc"}]}, "recipe.penalties: 'ewc'"),
    ]:
        answer = service.ask("PATCH", "/v1/models/breeds", json={"recipe": recipe})
        assert words in refused(answer)
        assert "leave `family` out" in refused(answer)


def test_ready_when_every_live_version_answers(service: Any) -> None:
    assert service.get("/livez", key=None).json() == {"status": "alive"}
    service.create()
    assert service.parts.refresher.wait_for(1, 1, 5)

    assert service.get("/readyz", key=None).json() == {"status": "ready", "waiting": [], "degraded": []}


def test_a_start_with_a_broken_live_version_serves_its_ancestor_and_says_so(start: Any) -> None:
    first = start()
    first.create()
    version = first.publish("iris", winner=0)
    (path,) = [path for path in first.settings.weights_dir.rglob("*") if path.is_file() and version.id in str(path)]
    beside = path.with_name("broken")  # the first server may be reading the file, which must not be cut short under it
    beside.write_bytes(b"broken")
    beside.replace(path)

    second = start()
    assert second.parts.refresher.wait_for(1, 1, 5)

    assert second.post("/v1/models/iris/predict", json=FEATURES).json()["version"] == 1
    assert "Serving version 1 meanwhile" in second.parts.live_models.get("iris").error
    ready = second.get("/readyz", key=None)
    assert (ready.status_code, ready.json()["status"], ready.json()["degraded"]) == (200, "degraded", ["iris"])


def test_the_description_is_complete(service: Any) -> None:
    schema = service.get("/openapi.json", key=None).json()

    assert schema["openapi"].startswith("3.1")
    references = set(_references(schema))
    assert references <= {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}
    for path, item in schema["paths"].items():
        for method, call in item.items():
            assert call["summary"], (method, path)
            if path.startswith("/v1"):
                assert {"401", "403", "422", "503"} <= call["responses"].keys(), (method, path)
            if method in ("post", "patch"):
                content = call["requestBody"]["content"]["application/json"]
                assert content["examples"], (method, path)


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in _references(value)]
    if isinstance(node, list):
        return [found for value in node for found in _references(value)]
    return []


def test_how_requests_are_joined_can_be_changed_while_serving(service: Any) -> None:
    service.create()
    batcher = service.parts.batcher

    changed = service.ask("PATCH", "/v1/models/iris", json={"batching": {"max_items": 8, "window_ms": 2}})

    assert changed.status_code == 200, changed.text
    assert changed.json()["batching"] == {"max_items": 8, "window_ms": 2.0, "queue_items": None}
    service.parts.refresher.refresh()
    assert batcher._queue("iris").batching == Batching(max_items=8, window_ms=2.0)
    assert service.get("/v1/models/iris").json()["recipe_number"] == 1
    kinds = [event["kind"] for event in service.get("/v1/events").json()["events"]]
    assert "batching.changed" in kinds


@pytest.mark.parametrize("change", [{}, {"batching": {"max_items": 0}}, {"batching": {"window": 1}}])
def test_a_change_that_says_nothing_or_makes_no_sense_is_refused(service: Any, change: dict[str, Any]) -> None:
    service.create()

    answer = service.ask("PATCH", "/v1/models/iris", json=change)

    assert answer.status_code == 422, answer.text
