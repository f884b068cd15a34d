"""The server's figures for Prometheus, in a registry of their own.

The predict route counts, the metrics route reads what changes by itself at the moment it is asked.
"""

from collections import OrderedDict

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

VERSIONS = 50  # whose counts are kept: a server that keeps learning would never stop adding series


class Metrics:
    """One instance an application; names begin with `perennial_`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._versions: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._predictions = Counter(
            "perennial_predictions", "Inputs answered.", ["model", "version"], registry=self._registry
        )
        self.prediction_errors = Counter(
            "perennial_prediction_errors",
            "Predict requests without an answer, by reason.",
            ["model", "reason"],
            registry=self._registry,
        )
        self._prediction_seconds = Histogram(
            "perennial_prediction_seconds",
            "Time of an answered predict request.",
            ["model"],
            registry=self._registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.samples = Counter(
            "perennial_samples", "Samples received, by outcome.", ["model", "outcome"], registry=self._registry
        )
        self._live_version = Gauge(
            "perennial_live_version", "Number of the version served.", ["model"], registry=self._registry
        )
        self._live_epoch = Gauge(
            "perennial_live_epoch", "Epoch of the line that is served.", ["model"], registry=self._registry
        )
        self._swaps = Gauge(
            "perennial_swaps", "Versions swapped in since the start.", ["model"], registry=self._registry
        )
        self._queued = Gauge(
            "perennial_samples_queued", "Samples that wait to be learned.", ["model"], registry=self._registry
        )
        self._oldest = Gauge(
            "perennial_samples_oldest_seconds", "Age of the oldest waiting sample.", ["model"], registry=self._registry
        )
        self._inflight = Gauge("perennial_predict_inflight", "Predict requests in work.", registry=self._registry)
        self._unwritten = Gauge(
            "perennial_predictions_unwritten", "Prediction records that wait to be written.", registry=self._registry
        )
        self._dropped = Gauge(
            "perennial_predictions_dropped", "Prediction records that were not kept.", registry=self._registry
        )

    def answered(self, model: str, version: int, inputs: int, seconds: float) -> None:
        """Count an answered request. On the event loop only."""
        series = (model, str(version))
        self._versions[series] = None
        self._versions.move_to_end(series)
        if len(self._versions) > VERSIONS:
            oldest, _ = self._versions.popitem(last=False)
            self._predictions.remove(*oldest)
        self._predictions.labels(*series).inc(inputs)
        self._prediction_seconds.labels(model).observe(seconds)

    def serve(self, model: str, *, version: int, epoch: int, swaps: int) -> None:
        self._live_version.labels(model).set(version)
        self._live_epoch.labels(model).set(epoch)
        self._swaps.labels(model).set(swaps)

    def queue(self, model: str, *, queued: int, oldest_seconds: float | None) -> None:
        self._queued.labels(model).set(queued)
        self._oldest.labels(model).set(oldest_seconds or 0.0)

    def process(self, *, inflight: int, unwritten: int, dropped: int) -> None:
        self._inflight.set(inflight)
        self._unwritten.set(unwritten)
        self._dropped.set(dropped)

    def text(self) -> bytes:
        """Give everything in Prometheus' text form."""
        return generate_latest(self._registry)
