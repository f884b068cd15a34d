"""Histograms that the event loop fills, a few of them with every request: without a lock, and by bisection.

prometheus_client's own take a lock for each number and walk through the buckets, which is five times as long.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Distribution:
    """One series. Filled by one thread; whoever reads meanwhile may miss what is being added."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)  # not added up, the last beyond all bounds
        self._total = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Give the counts up to each bound, and the total."""
        buckets, count = [], 0
        for bound, here in zip([*self._bounds, float("inf")], list(self._counts), strict=True):
            count += here
            buckets.append((floatToGoString(bound), float(count)))  # type: ignore[no-untyped-call]
        return buckets, self._total


class Distributions(Collector):
    """The series of one figure, by model."""

    def __init__(self, name: str, words: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._words = words
        self._bounds = bounds
        self._series: dict[str, Distribution] = {}
        registry.register(self)

    def of(self, model: str) -> Distribution:
        """Give the series of a model, made empty if there was none."""
        return self._series.setdefault(model, Distribution(self._bounds))

    def describe(self) -> Iterable[Metric]:
        return [HistogramMetricFamily(self._name, self._words, labels=["model"])]

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._words, labels=["model"])
        for model, series in list(self._series.items()):
            buckets, total = series.read()
            family.add_metric([model], buckets, total)
        return [family]
