"""The figures of learning for Prometheus, which all processes read from one database: few queries, kept a while."""

import threading
import time
from collections.abc import Callable, Iterable

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from app.api.shown import prequential_of, share_of
from app.errors import PerennialError
from app.log import get_logger
from app.storage.learning_figures import LearningFigures
from app.storage.receipts import Receipts
from app.storage.registry import ModelRegistry
from app.storage.states import AssignmentRole

log = get_logger(__name__)

KEPT_SECONDS = 3.0


class LearningMetrics:
    """Safe to call from several threads."""

    def __init__(
        self,
        registry: ModelRegistry,
        receipts: Receipts,
        figures: LearningFigures,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._receipts = receipts
        self._figures = figures
        self._clock = clock
        self._reading = threading.Lock()
        self._kept: list[Metric] = []
        self._kept_until = 0.0

    def families(self) -> Iterable[Metric]:
        """Give the figures as they stood at most some seconds ago; none while the database is away."""
        with self._reading:
            if self._clock() >= self._kept_until:
                try:
                    self._kept = self._read()
                except Exception as error:  # the other figures are wanted most when the database is away
                    log.warning("figures not read", error=str(error), exc_info=not isinstance(error, PerennialError))
                    self._kept = []
                self._kept_until = self._clock() + KEPT_SECONDS
            return self._kept

    def _read(self) -> list[Metric]:
        queued = _gauge("samples_queued", "Samples that wait to be learned.")
        oldest = _gauge("samples_oldest_seconds", "Age of the oldest waiting sample.")
        accuracy = _gauge("live_accuracy", "Share of the held-out samples that the live version answers right.")
        prequential = _gauge(
            "prequential_accuracy", "Share of the latest samples that were answered right before they were learned."
        )
        updates = CounterMetricFamily(
            "perennial_updates",
            "Updates that ended, by how; without a verdict where it came to none.",
            labels=["model", "kind", "lane", "state", "verdict"],
        )
        for one in self._registry.assigned():
            if one.role != AssignmentRole.LIVE:
                continue
            depth = self._receipts.depth(one.model.id)
            queued.add_metric([one.model.name], depth.queued)
            oldest.add_metric([one.model.name], depth.oldest_seconds or 0.0)
            share = share_of(one.version.metrics)
            if share is not None:
                accuracy.add_metric([one.model.name], share)
            before = prequential_of(one.version.metrics)
            if before is not None and before.window is not None:
                prequential.add_metric([one.model.name], before.window)
        for done, count in sorted(self._figures.updates().items(), key=lambda pair: str(pair[0])):
            updates.add_metric([done.model, done.kind, done.lane, done.state, done.verdict], count)
        return [queued, oldest, accuracy, prequential, updates]


def _gauge(name: str, words: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"perennial_{name}", words, labels=["model"])
