"""The figures of all serving processes of a host, whichever of them is asked.

Each process keeps its own and gives them to a sibling that asks. What was given is in a file before it is told, so
that counts never fall: the process that comes after a dead one goes on from there. Gauges die with their process.
"""

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from prometheus_client import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from app.api.metrics import VERSIONS, Metrics
from app.log import get_logger
from app.serving.siblings import Siblings

log = get_logger(__name__)

SUMMED = frozenset({"counter", "histogram"})  # what a successor goes on from
OF_ANY = frozenset({"process_start_time_seconds", "process_max_fds"})  # no sum of these means anything
SERVED = ("perennial_live_epoch", "perennial_live_version")


class Figure(NamedTuple):
    """One sample of a family, as it travels."""

    family: str
    kind: str
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


class HostMetrics:
    """Asks the siblings and adds up. Safe to call from several threads."""

    def __init__(
        self,
        metrics: Metrics,
        siblings: Siblings,
        *,
        gather: Callable[[], None],
        shared: Callable[[], Iterable[Metric]],
    ) -> None:
        """`gather` sets what changes by itself in `metrics`; `shared` are figures that all processes have in common."""
        self._metrics = metrics
        self._siblings = siblings
        self._gather = gather
        self._shared = shared
        self._telling = threading.Lock()
        place = siblings.place
        self._file = None if place is None else place.file
        self._others = {} if place is None else {other.number: other.file for other in place.others()}
        self._before = (
            [] if self._file is None else _of_newest_versions(_read(self._file))
        )  # counts of those who died in this place

    def text(self) -> bytes:
        """Give everything in Prometheus' text form."""
        own = self._own()
        answers = self._siblings.ask("figures")
        heard = {number: figures for number, answer in answers.items() if (figures := _parsed(answer)) is not None}
        told = [own, *heard.values()]
        silent = [_read(file) for number, file in self._others.items() if number not in heard]
        processes = GaugeMetricFamily("perennial_serving_processes", "Serving processes of this host that answer.")
        processes.add_metric([], len(told))
        return generate_latest(_Collected([*self._added(told, silent), *self._shared(), processes]))

    def tell(self) -> bytes:
        """Give this process's figures to a sibling."""
        return json.dumps(self._own()).encode()

    def _own(self) -> list[Figure]:
        with self._telling:
            self._gather()
            figures = _sums([*self._before, *_figures(self._metrics.families())])
            if self._file is not None:
                try:
                    _write(self._file, [figure for figure in figures if figure.kind in SUMMED])
                except OSError:  # then a successor may go on from less
                    log.warning("figures not written", exc_info=True)
            return figures

    def _added(self, told: list[list[Figure]], silent: list[list[Figure]]) -> Iterable[Metric]:
        added = [one for process in (*told, *silent) for one in process if one.name not in SERVED]
        figures = _served_by_all(told) + _sums(added)
        by_family: dict[str, list[Figure]] = {}
        for figure in figures:
            by_family.setdefault(figure.family, []).append(figure)
        for family in self._metrics.families():
            metric = Metric(family.name, family.documentation, family.type)
            metric.samples = [
                Sample(figure.name, dict(figure.labels), figure.value) for figure in by_family.get(family.name, ())
            ]
            yield metric


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _figures(families: Iterable[Metric]) -> list[Figure]:
    return [
        Figure(family.name, family.type, sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]


def _sums(figures: Iterable[Figure]) -> list[Figure]:
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Figure] = {}
    for figure in figures:
        key = (figure.name, figure.labels)
        before = found.get(key)
        if before is None:
            found[key] = figure
        elif figure.name in OF_ANY:
            found[key] = min(before, figure, key=lambda one: one.value)
        else:
            found[key] = figure._replace(value=before.value + figure.value)
    return list(found.values())


def _served_by_all(processes: list[list[Figure]]) -> list[Figure]:
    """The version of each model that every process serves at least: that of the lowest epoch."""
    lowest: dict[tuple[tuple[str, str], ...], tuple[Figure, ...]] = {}
    for process in processes:
        found = {(figure.name, figure.labels): figure for figure in process if figure.name in SERVED}
        for (name, labels), epoch in found.items():
            if name == SERVED[0] and (labels not in lowest or epoch.value < lowest[labels][0].value):
                lowest[labels] = tuple(found[one, labels] for one in SERVED)
    return [figure for pair in lowest.values() for figure in pair]


def _parsed(answer: bytes) -> list[Figure] | None:
    """Read what a process told; None if it is empty or cut short."""
    try:
        return [
            Figure(family, kind, name, tuple((label, value) for label, value in labels), number)
            for family, kind, name, labels, number in json.loads(answer)
        ]
    except ValueError:
        return None


def _read(file: Path) -> list[Figure]:
    try:
        return _parsed(file.read_bytes()) or []
    except FileNotFoundError:
        return []


def _of_newest_versions(figures: list[Figure]) -> list[Figure]:
    """All but the counts by version of old versions: a place whose processes come and go keeps as few as they."""
    by_version = [figure for figure in figures if dict(figure.labels).get("version") is not None]
    by_version.sort(key=lambda figure: int(dict(figure.labels)["version"]))
    old = {(figure.name, figure.labels) for figure in by_version[:-VERSIONS]}
    return [figure for figure in figures if (figure.name, figure.labels) not in old]


def _write(file: Path, figures: list[Figure]) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(figures))
    beside.replace(file)
