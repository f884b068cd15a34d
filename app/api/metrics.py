"""The figures of one serving process for Prometheus, in a registry of their own.

The routes count on the event loop, the Batcher and the Refresher report from their threads; what changes by itself is
set when somebody asks. Kept in plain memory: files that processes share cost three times as much an observation, and
could never let go of the series of an old version.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics_core import Metric

from app.serving.batch_report import BatchReport
from app.serving.swap_report import SwapReport

VERSIONS = 50  # whose counts are kept: a server that keeps learning would never stop adding series

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
SWAP_SECONDS = (0.00001, 0.0001, 0.001, 0.01, 0.1, 1)
LOAD_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
LABEL_SECONDS = (0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 86400)
BATCH_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class _Stages:
    """The series of one model that every request or batch adds to, looked up once."""

    request: Histogram
    queue: Histogram
    decode: Histogram
    compute: Histogram
    encode: Histogram
    items: Histogram
    requests: Histogram


class Metrics:
    """One instance an application; names begin with `perennial_`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._versions: OrderedDict[tuple[str, int], Counter] = OrderedDict()
        self._stages: dict[str, _Stages] = {}
        self._predictions = self._counter("predictions", "Inputs answered.", "model", "version")
        self._rejections = self._counter(
            "rejections", "Predict requests without an answer, by reason.", "model", "reason"
        )
        self.samples = self._counter("samples", "Samples received, by outcome.", "model", "outcome")

        self._request = self._histogram("prediction_seconds", "Time of an answered predict request.", REQUEST_SECONDS)
        self._queue = self._histogram(
            "queue_seconds", "Time from a request's arrival to its dispatch in a batch.", STAGE_SECONDS
        )
        self._decode = self._histogram("decode_seconds", "Time to decode a batch's inputs.", STAGE_SECONDS)
        self._compute = self._histogram("compute_seconds", "Time of a batch's forward pass.", STAGE_SECONDS)
        self._encode = self._histogram("encode_seconds", "Time to write a request's answer.", STAGE_SECONDS)
        self._items = self._histogram("batch_items", "Inputs in a batch.", BATCH_ITEMS)
        self._requests = self._histogram("batch_requests", "Requests that share a batch.", BATCH_ITEMS)

        self._swap = self._histogram(
            "swap_seconds", "Time the publishing of a loaded version took: what a swap can stall.", SWAP_SECONDS
        )
        self._load = self._histogram("load_seconds", "Time to load and warm up a version.", LOAD_SECONDS)
        self._label_to_live = self._histogram(
            "label_to_live_seconds",
            "Age of the newest and the oldest label of a version when it was first served.",
            LABEL_SECONDS,
            "label",
        )
        self._live_version = self._gauge("live_version", "Number of the version served.", "model")
        self._live_epoch = self._gauge("live_epoch", "Epoch of the line that is served.", "model")
        self._swaps = self._gauge("swaps", "Versions swapped in since the start.", "model")
        self._inflight = self._gauge("predict_inflight", "Predict requests in work.")
        self._unwritten = self._gauge("predictions_unwritten", "Prediction records that wait to be written.")
        self._dropped = self._gauge("predictions_dropped", "Prediction records that were not kept.")

    def answered(self, model: str, version: int, inputs: int, seconds: float) -> None:
        """Count an answered request. On the event loop only."""
        counter = self._versions.get((model, version))
        if counter is None:
            counter = self._version(model, version)
        self._versions.move_to_end((model, version))
        counter.inc(inputs)
        self._of(model).request.observe(seconds)

    def encoded(self, model: str, seconds: float) -> None:
        """Count the writing of an answer."""
        self._of(model).encode.observe(seconds)

    def rejected(self, model: str, reason: str) -> None:
        """Count a request without an answer; `model` must be one that exists, or a fixed word."""
        self._rejections.labels(model, reason).inc()

    def batch(self, report: BatchReport) -> None:
        """Count a batch. From any thread."""
        stages = self._of(report.model)
        for seconds in report.queue_seconds:
            stages.queue.observe(seconds)
        stages.decode.observe(report.decode_seconds)
        stages.compute.observe(report.compute_seconds)
        stages.items.observe(report.items)
        stages.requests.observe(report.requests)

    def swapped(self, report: SwapReport) -> None:
        """Count a version that is served from now on. From any thread."""
        self._swap.labels(report.model).observe(report.swap_seconds)
        if report.load_seconds is not None:
            self._load.labels(report.model).observe(report.load_seconds)
        for label, seconds in (("newest", report.newest_label_seconds), ("oldest", report.oldest_label_seconds)):
            if seconds is not None:
                self._label_to_live.labels(report.model, label).observe(seconds)

    def serve(self, model: str, *, version: int, epoch: int, swaps: int) -> None:
        self._live_version.labels(model).set(version)
        self._live_epoch.labels(model).set(epoch)
        self._swaps.labels(model).set(swaps)

    def process(self, *, inflight: int, unwritten: int, dropped: int) -> None:
        self._inflight.set(inflight)
        self._unwritten.set(unwritten)
        self._dropped.set(dropped)

    def families(self) -> Iterable[Metric]:
        """Give all figures as they stand."""
        return self._registry.collect()

    def _version(self, model: str, version: int) -> Counter:
        counter: Counter = self._predictions.labels(model, version)
        self._versions[model, version] = counter
        if len(self._versions) > VERSIONS:
            oldest, _ = self._versions.popitem(last=False)
            self._predictions.remove(*oldest)
        return counter

    def _of(self, model: str) -> _Stages:
        found = self._stages.get(model)
        if found is None:
            found = self._stages[model] = _Stages(
                request=self._request.labels(model),
                queue=self._queue.labels(model),
                decode=self._decode.labels(model),
                compute=self._compute.labels(model),
                encode=self._encode.labels(model),
                items=self._items.labels(model),
                requests=self._requests.labels(model),
            )
        return found

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"perennial_{name}", words, labels, registry=self._registry)

    def _gauge(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(f"perennial_{name}", words, labels, registry=self._registry)

    def _histogram(self, name: str, words: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"perennial_{name}", words, ("model", *labels), registry=self._registry, buckets=buckets)
