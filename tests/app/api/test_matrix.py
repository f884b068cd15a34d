"""Version × class and version × time, told from what versions recorded."""

from typing import Any

import pytest

MATRIX = "/v1/models/iris/versions/matrix"
TEST = {"accuracy": 0.75, "n": 8, "per_class": {"1": [6, 8]}}
STATE = {"state": {"of": {}, "repeated": 3, "last_label": 1}}
PREQUENTIAL = {"whole": 0.5, "window": 0.6, "fading": 0.7, "n": 30, "no_change": 0.25}


def taught(service: Any) -> None:
    """Three versions: class b comes with the second, class a falls in it and recovers in part."""
    service.create()
    service.publish(
        "iris",
        winner=0,
        metrics={"accuracy": 1.0, "per_class": {"1": [10, 10]}, "per_slice": {"2026-01-01T10": [10, 10]}},
    )
    service.publish(
        "iris",
        winner=0,
        metrics={
            "accuracy": 0.65,
            "per_class": {"1": [5, 10], "2": [8, 10]},
            "per_class_before": {"1": [9, 10], "2": [6, 10]},
            "per_slice": {"2026-01-01T10": [5, 8], "2026-01-01T23": [0, 2], "2026-01-05T00": [8, 10]},
        },
    )
    service.publish(
        "iris",
        winner=0,
        metrics={
            "accuracy": 0.8,
            "per_class": {"1": [16, 20], "2": [8, 10], "3": [0, 0]},
            "per_slice": {"2026-02-01T10": [24, 30]},
            "test": TEST,
            "prequential": {**PREQUENTIAL, **STATE},
            "delta": True,
        },
    )


def test_each_version_tells_how_it_does_on_each_class(service: Any) -> None:
    taught(service)

    shown = service.get(MATRIX)

    assert shown.status_code == 200, shown.text
    body = shown.json()
    assert (body["model"], body["slice"], body["classes"], body["truncated"]) == ("iris", "day", ["a", "b", "c"], False)
    rows = {row["version"]: row["by_class"] for row in body["versions"]}
    assert list(rows) == [4, 3, 2, 1]
    assert rows[4] == [{"accuracy": 0.8, "n": 20}, {"accuracy": 0.8, "n": 10}, None]
    assert rows[3] == [{"accuracy": 0.5, "n": 10}, {"accuracy": 0.8, "n": 10}, None]
    assert rows[2] == [{"accuracy": 1.0, "n": 10}, None, None]
    assert rows[1] == [None, None, None]
    assert [row["live"] for row in body["versions"]] == [True, False, False, False]
    newest = body["versions"][0]
    assert newest["test"] == {"accuracy": 0.75, "n": 8}
    assert newest["prequential"] == PREQUENTIAL


@pytest.mark.parametrize(
    ("span", "columns", "third"),
    [
        ("hour", ["2026-01-01T10", "2026-01-01T23", "2026-01-05T00", "2026-02-01T10"], [(0.625, 8), (0, 2), (0.8, 10)]),
        ("day", ["2026-01-01", "2026-01-05", "2026-02-01"], [(0.5, 10), (0.8, 10)]),
        ("week", ["2026-W01", "2026-W02", "2026-W05"], [(0.5, 10), (0.8, 10)]),
        ("month", ["2026-01", "2026-02"], [(0.65, 20)]),
    ],
)
def test_hours_are_added_up_into_longer_spans(
    service: Any, span: str, columns: list[str], third: list[tuple[float, int]]
) -> None:
    taught(service)

    body = service.get(f"{MATRIX}?slice={span}").json()

    assert body["slices"] == columns
    by_slice = body["versions"][1]["by_slice"]
    assert by_slice == [*({"accuracy": share, "n": n} for share, n in third), None]


def test_the_summary_is_computed_from_the_classes_of_the_line(service: Any) -> None:
    taught(service)

    summary = service.get(MATRIX).json()["summary"]

    assert summary == {
        "versions": 3,
        "accuracy": pytest.approx(0.8),
        "average_incremental_accuracy": pytest.approx((1.0 + (0.5 + 0.8) / 2 + (0.8 + 0.8) / 2) / 3),
        "backward_transfer": pytest.approx(((0.8 - 1.0) + (0.8 - 0.8)) / 2),
        "forgetting": pytest.approx(((1.0 - 0.8) + (0.8 - 0.8)) / 2),
        "forward_transfer": pytest.approx(6 / 10 - 1 / 3),
        "minimum": pytest.approx((0.5 + 0.8) / 2),
        "worst_case": pytest.approx((0.5 + 0.8) / 2),
    }


def test_what_was_rolled_back_is_shown_and_left_out_of_the_summary(service: Any) -> None:
    taught(service)
    assert service.post("/v1/models/iris/rollback", json={"reason": "worse"}).status_code == 200

    body = service.get(MATRIX).json()

    assert [row["line"] for row in body["versions"]] == [False, True, True, True]
    assert [row["live"] for row in body["versions"]] == [False, True, False, False]
    assert body["summary"]["versions"] == 2
    assert body["summary"]["forgetting"] == pytest.approx(0.5)


def test_the_newest_versions_are_shown(service: Any) -> None:
    taught(service)

    body = service.get(f"{MATRIX}?limit=1").json()

    assert [row["version"] for row in body["versions"]] == [4]
    assert body["summary"]["forgetting"] is None


def test_a_model_that_learned_nothing_has_an_empty_matrix(service: Any) -> None:
    service.create(labels=[])

    body = service.get(MATRIX).json()

    assert (body["classes"], body["slices"], len(body["versions"])) == ([], [], 1)
    assert body["summary"] == {"versions": 0, **dict.fromkeys(list(body["summary"])[1:])}


def test_a_span_that_is_none_and_a_model_that_is_none_are_refused(service: Any) -> None:
    service.create()

    assert service.get(f"{MATRIX}?slice=year").status_code == 422
    assert service.get("/v1/models/none/versions/matrix").status_code == 404


def test_versions_and_models_show_test_and_prequential_figures(service: Any) -> None:
    taught(service)

    model = service.get("/v1/models/iris").json()
    version = service.get("/v1/models/iris/versions/4").json()
    first = service.get("/v1/models/iris/versions/1").json()

    for shown in (model, version):
        assert shown["accuracy"] == 0.8
        assert shown["test"] == {"accuracy": 0.75, "n": 8}
        assert shown["prequential"] == PREQUENTIAL
    assert version["metrics"]["prequential"] == PREQUENTIAL  # what the next update goes on from is no figure
    assert (first["accuracy"], first["test"], first["prequential"], first["delta"]) == (None, None, None, False)
