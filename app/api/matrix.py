"""The matrix of a model: version × class and version × time, and what continual learning's figures say of it.

Read from what the versions recorded when they were judged. Routed before `/versions/{version}`, which would take the
word for a number.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query

from app import continual_metrics
from app.api.deps import Wired
from app.api.key_cache import Scope
from app.api.openapi import problems
from app.api.paths import Limit, ModelPath
from app.api.schemas.matrix import CellAnswer, MatrixAnswer, MatrixRow, MatrixSummary, Slice
from app.api.security import needs
from app.api.shown import prequential_of, share_of, test_of
from app.continual_metrics import Table
from app.storage.tables import Version

router = APIRouter(prefix="/v1/models/{model}", tags=["versions"])

COLUMNS = 500

Counts = Mapping[str, Sequence[int]]  # (right, n) by label id or by hour


@router.get(
    "/versions/matrix",
    summary="Versions by class and by time",
    response_model=MatrixAnswer,
    responses=problems(404),
    **needs(Scope.PREDICT),
)
def matrix(
    model: ModelPath,
    parts: Wired,
    span: Annotated[Slice, Query(alias="slice", description="The length of a span of time.")] = Slice.DAY,
    limit: Limit = 50,
) -> MatrixAnswer:
    """Show how the newest versions do on each class, and on the held-out samples that came in each span of time.

    A column that falls from one version to the next is something forgotten; a row that is low on the newest spans is
    a model that the world has left behind.
    """
    row = parts.registry.model(model)
    versions = parts.registry.versions(row.id, None, limit)
    live = parts.registry.live(row.id).version.id
    line = set(parts.registry.line(live))
    names = {str(label.id): label.name for label in parts.registry.labels(row.id)}
    by_class = [_recorded(version, "per_class") for version in versions]
    by_slice = [in_spans(_recorded(version, "per_slice"), span) for version in versions]
    known = {str(label) for version in versions for label in version.spec["labels"]}
    classes = sorted(known.union(*by_class), key=int)
    spans = sorted(set[str]().union(*by_slice))
    shown_classes, shown_spans = classes[:COLUMNS], spans[-COLUMNS:]
    return MatrixAnswer(
        model=row.name,
        slice=span,
        classes=[names.get(label, label) for label in shown_classes],
        slices=shown_spans,
        versions=[
            MatrixRow(
                version=version.number,
                live=version.id == live,
                line=version.id in line,
                delta=version.base_id is not None,
                verdict=version.verdict,
                created_at=version.created_at,
                accuracy=share_of(version.metrics),
                test=test_of(version.metrics),
                prequential=prequential_of(version.metrics),
                by_class=[_cell(classed.get(label)) for label in shown_classes],
                by_slice=[_cell(timed.get(one)) for one in shown_spans],
            )
            for version, classed, timed in zip(versions, by_class, by_slice, strict=True)
        ],
        summary=summarized(
            [
                Measured(counts, _recorded(version, "per_class_before"), len(version.spec["labels"]))
                for version, counts in zip(versions, by_class, strict=True)
                if version.id in line and counts
            ]
        ),
        truncated=len(classes) > COLUMNS or len(spans) > COLUMNS,
    )


def in_spans(hours: Counts, span: Slice) -> dict[str, list[int]]:
    """Add up what was counted by the hour (`2026-01-02T12`) into longer spans."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for hour, (right, n) in hours.items():
        name = _span(hour, span)
        sums[name] = [sums[name][0] + right, sums[name][1] + n]
    return sums


@dataclass(frozen=True)
class Measured:
    """What a version recorded of the classes, of itself and of the version before it, and how many it knew."""

    counts: Counts
    before: Counts
    known: int


def summarized(newest_first: Sequence[Measured]) -> MatrixSummary:
    """Compute the figures from what the line's versions recorded of the classes."""
    rows = list(reversed(newest_first))
    columns = sorted({label for row in rows for label, (_, n) in row.counts.items() if n})
    table = [[_share(row.counts.get(label)) for label in columns] for row in rows]
    learned = _numbers(continual_metrics.first_measured(table))
    return MatrixSummary(
        versions=len(rows),
        accuracy=continual_metrics.accuracy(table),
        average_incremental_accuracy=continual_metrics.average_incremental_accuracy(table, learned),
        backward_transfer=continual_metrics.backward_transfer(table, learned),
        forward_transfer=_forward_transfer(rows, columns, table, learned),
        forgetting=continual_metrics.forgetting(table, learned),
        minimum=continual_metrics.min_accuracy(table, learned),
        worst_case=continual_metrics.worst_case_accuracy(table, learned),
    )


def _forward_transfer(
    rows: Sequence[Measured], columns: Sequence[str], table: Table, learned: Sequence[int]
) -> float | None:
    """Fill in what each class's first version told of the one before it; a freshly drawn network answers by chance."""
    ahead, chance = [list(row) for row in table], list[float | None]()
    for place, (label, step) in enumerate(zip(columns, learned, strict=True)):
        if step:
            ahead[step - 1][place] = _share(rows[step].before.get(label))
        chance.append(1 / rows[step - 1].known if step and rows[step - 1].known else None)
    return continual_metrics.forward_transfer(ahead, chance, learned)


def _recorded(version: Version, name: str) -> Counts:
    found: Any = version.metrics.get(name)
    return found if isinstance(found, dict) else {}


def _span(hour: str, span: Slice) -> str:
    match span:
        case Slice.HOUR:
            return hour
        case Slice.DAY:
            return hour[:10]
        case Slice.WEEK:
            year, week, _ = date.fromisoformat(hour[:10]).isocalendar()
            return f"{year}-W{week:02}"
        case Slice.MONTH:
            return hour[:7]


def _share(counts: Sequence[int] | None) -> float | None:
    return counts[0] / counts[1] if counts and counts[1] else None


def _cell(counts: Sequence[int] | None) -> CellAnswer | None:
    share = _share(counts)
    return None if counts is None or share is None else CellAnswer(accuracy=share, n=counts[1])


def _numbers(found: Iterable[int | None]) -> list[int]:
    return [one for one in found if one is not None]
