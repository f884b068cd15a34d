"""What one process counts, what several add up to, and the dashboard that shows it."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from app.api.host_metrics import HostMetrics
from app.api.metrics import VERSIONS, Metrics
from app.serving.batch_report import BatchReport
from app.serving.siblings import Place, Siblings
from app.serving.swap_report import SwapReport

DASHBOARD = json.loads((Path(__file__).resolve().parents[3] / "docs/grafana/perennial.json").read_text())


def values(text: bytes) -> dict[str, float]:
    """Every sample by its name and labels, as Prometheus would read them."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def process(metrics: Metrics, place: Place | None = None, gather: Callable[[], None] = lambda: None) -> HostMetrics:
    return HostMetrics(metrics, Siblings(place), gather=gather, shared=nothing)


def nothing() -> Iterable[Metric]:
    return ()


def test_a_batch_is_counted_by_its_stages_and_each_of_its_requests_by_its_wait() -> None:
    metrics = Metrics()

    metrics.batch(BatchReport("pets", 5, 2, (0.001, 0.2), decode_seconds=0.01, compute_seconds=0.03))
    metrics.encoded("pets", 0.0002)

    found = values(process(metrics).text())
    assert found["perennial_queue_seconds_count[('model', 'pets')]"] == 2
    assert found["perennial_queue_seconds_sum[('model', 'pets')]"] == pytest.approx(0.201)
    assert found["perennial_decode_seconds_count[('model', 'pets')]"] == 1
    assert found["perennial_compute_seconds_sum[('model', 'pets')]"] == 0.03
    assert found["perennial_batch_items_bucket[('le', '4.0'), ('model', 'pets')]"] == 0
    assert found["perennial_batch_items_bucket[('le', '8.0'), ('model', 'pets')]"] == 1
    assert found["perennial_batch_requests_sum[('model', 'pets')]"] == 2
    assert found["perennial_encode_seconds_count[('model', 'pets')]"] == 1


def test_a_warm_version_has_no_loading_and_a_new_one_tells_the_age_of_its_labels() -> None:
    metrics = Metrics()

    metrics.swapped(SwapReport("pets", 2, 0.00001, 0.05, newest_label_seconds=1.2, oldest_label_seconds=4.0))
    metrics.swapped(SwapReport("pets", 1, 0.00001))

    found = values(process(metrics).text())
    assert found["perennial_swap_seconds_count[('model', 'pets')]"] == 2
    assert found["perennial_load_seconds_count[('model', 'pets')]"] == 1
    assert found["perennial_label_to_live_seconds_sum[('label', 'newest'), ('model', 'pets')]"] == 1.2
    assert found["perennial_label_to_live_seconds_sum[('label', 'oldest'), ('model', 'pets')]"] == 4.0


def test_old_versions_leave_the_figures_so_that_they_never_grow_without_end() -> None:
    metrics = Metrics()
    metrics.answered("pets", 1, 1, 0.001)

    for version in range(2, 3 * VERSIONS):
        metrics.answered("pets", version, 1, 0.001)
        metrics.answered("pets", 1, 1, 0.001)  # still asked, by number

    counted = [name for name in values(process(metrics).text()) if name.startswith("perennial_predictions_total")]
    assert len(counted) == VERSIONS
    assert any("('version', '1')" in name for name in counted)


def test_whichever_process_is_asked_gives_the_sum_of_all(tmp_path: Path) -> None:
    places = [Place(tmp_path, number, 2) for number in (1, 2)]
    (one, first, here), (two, second, there) = (_running(place) for place in places)
    try:
        one.answered("pets", 7, 3, 0.002)
        two.answered("pets", 7, 4, 0.002)
        two.answered("cars", 1, 5, 0.002)
        one.serve("pets", version=7, epoch=9, swaps=2)
        two.serve("pets", version=8, epoch=8, swaps=1)
        one.process(inflight=2, unwritten=0, dropped=0)
        two.process(inflight=3, unwritten=0, dropped=0)

        for found in (values(first.text()), values(second.text())):
            assert found["perennial_predictions_total[('model', 'pets'), ('version', '7')]"] == 7
            assert found["perennial_predictions_total[('model', 'cars'), ('version', '1')]"] == 5
            assert found["perennial_prediction_seconds_count[('model', 'pets')]"] == 2
            assert found["perennial_predict_inflight[]"] == 5
            assert found["perennial_live_epoch[('model', 'pets')]"] == 8  # what both have reached
            assert found["perennial_live_version[('model', 'pets')]"] == 8
            assert found["perennial_serving_processes[]"] == 2
            assert found["process_resident_memory_bytes[]"] > 0
    finally:
        here.stop()
        there.stop()


def test_counts_outlive_the_process_that_told_them_and_gauges_do_not(tmp_path: Path) -> None:
    one, first, here = _running(Place(tmp_path, 1, 2))
    two, _, there = _running(Place(tmp_path, 2, 2))
    one.answered("pets", 7, 3, 0.002)
    two.answered("pets", 7, 4, 0.002)
    two.process(inflight=3, unwritten=0, dropped=0)
    assert values(first.text())["perennial_predict_inflight[]"] == 3

    there.stop()  # as good as dead: it answers nobody
    alone = values(first.text())
    _, _, successor = after = _running(Place(tmp_path, 2, 2))
    try:
        after[0].answered("pets", 7, 1, 0.002)
        found = values(first.text())
    finally:
        here.stop()
        successor.stop()

    assert alone["perennial_predictions_total[('model', 'pets'), ('version', '7')]"] == 7
    assert alone["perennial_predict_inflight[]"] == 0
    assert alone["perennial_serving_processes[]"] == 1
    assert found["perennial_predictions_total[('model', 'pets'), ('version', '7')]"] == 8


@pytest.mark.parametrize("answer", [b"", b'[["perennial_predictions", "counter", "perennial_pre'])
def test_an_answer_that_is_empty_or_cut_short_is_as_good_as_none(tmp_path: Path, answer: bytes) -> None:
    two, second, there = _running(Place(tmp_path, 2, 2))
    two.answered("pets", 7, 4, 0.002)
    second.tell()
    there.stop()
    one, first, here = _running(Place(tmp_path, 1, 2))
    broken = Siblings(Place(tmp_path, 2, 2))
    broken.start({"figures": lambda: answer})
    try:
        one.answered("pets", 7, 3, 0.002)
        found = values(first.text())
    finally:
        broken.stop()
        here.stop()

    assert found["perennial_predictions_total[('model', 'pets'), ('version', '7')]"] == 7
    assert found["perennial_serving_processes[]"] == 1


def test_figures_are_told_though_they_cannot_be_written(tmp_path: Path) -> None:
    place = Place(tmp_path, 1, 1)
    place.file.with_suffix(".new").mkdir()
    metrics = Metrics()
    metrics.answered("pets", 7, 3, 0.002)

    found = values(process(metrics, place).text())

    assert found["perennial_predictions_total[('model', 'pets'), ('version', '7')]"] == 3


def _running(place: Place) -> tuple[Metrics, HostMetrics, Siblings]:
    metrics, siblings = Metrics(), Siblings(place)
    host = HostMetrics(metrics, siblings, gather=lambda: None, shared=nothing)
    siblings.start({"figures": host.tell})
    return metrics, host, siblings


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_the_dashboard_has_targets_in_every_panel_and_no_id_twice() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]

    assert len(ids) == len(set(ids))
    assert rows == ["Traffic", "Latency by stage", "Batching", "Versions and swaps", "Learning", "Process"]
    assert all(panel["targets"] and all(target["expr"] for target in panel["targets"]) for panel in panels())
    assert all(panel["title"] and panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels())
    for panel in panels():
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_dashboard_asks_only_for_figures_there_are_and_shows_them_all(service: Any) -> None:
    families = {
        family.name: family.type
        for family in text_string_to_metric_families(service.get("/metrics").text)
        if not family.name.startswith("process_")
    }
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    queries += [one["expr"] for one in DASHBOARD["annotations"]["list"]]

    asked = {name for query in queries for name in re.findall(r"\bperennial_\w+", query)}
    series = {name for family, kind in families.items() for name in _series(family, kind)}

    assert asked - series == set()
    assert {family for family, kind in families.items() if not asked & _series(family, kind)} == set()


def _series(family: str, kind: str) -> set[str]:
    ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(kind, ("",))
    return {family + end for end in ends}


def test_what_was_learned_and_swapped_is_told(service: Any) -> None:
    service.create()
    service.publish("iris", 1, metrics={"accuracy": 0.75, "prequential": {"window": 0.5, "n": 8}})
    epoch = service.parts.registry.live(service.parts.registry.model("iris").id).epoch
    assert service.parts.refresher.wait_for(service.parts.registry.model("iris").id, epoch, 20)
    service.parts.refresher.stop()  # so that it has counted what it published

    found = values(service.get("/metrics").content)

    learned = (
        "[('kind', 'learn'), ('lane', 'slow'), ('model', 'iris'), ('state', 'committed'), ('verdict', 'promoted')]"
    )
    assert found[f"perennial_updates_total{learned}"] == 1
    assert found["perennial_live_accuracy[('model', 'iris')]"] == 0.75
    assert found["perennial_prequential_accuracy[('model', 'iris')]"] == 0.5
    assert found["perennial_swap_seconds_count[('model', 'iris')]"] == 2
    assert found["perennial_load_seconds_count[('model', 'iris')]"] == 2
    assert found["perennial_label_to_live_seconds_count[('label', 'newest'), ('model', 'iris')]"] == 1
    assert found["perennial_label_to_live_seconds_sum[('label', 'newest'), ('model', 'iris')]"] < 60


def test_a_rejection_names_its_reason(service: Any) -> None:
    service.create()

    service.post("/v1/models/iris/predict", json={"inputs": [{"features": [1.0]}]})

    found = values(service.get("/metrics").content)
    assert found["perennial_rejections_total[('model', 'iris'), ('reason', 'InvalidItem')]"] == 1
