"""What a version is said to be worth: the figures that stand in its row.

Made by every way to learn from what versions said of samples that were kept apart. Decides nothing.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from worker.decoding import Labelled
from worker.gate import Judged

RECENT = timedelta(hours=48)
"""Samples that came so long ago are counted by the day, younger ones by the hour."""


def figures(judged: Sequence[Judged], sample_ids: Sequence[str], labels: Sequence[int], at: datetime) -> dict[str, Any]:
    """Accuracy of the candidate on held-out samples: whole, by label id, and by when the sample came.

    And by label id that of the version before it on the same samples, which forward transfer is told from. `labels`
    are those the candidate knows; samples of others do not count. Pairs are [right, n].
    """
    rows = set(labels)
    known = [(one, sample_id) for one, sample_id in zip(judged, sample_ids, strict=True) if one.label in rows]
    per_class: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    per_class_before: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    per_slice: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one, sample_id in known:
        per_class_before[str(one.label)][0] += one.live == one.label
        per_class_before[str(one.label)][1] += 1
        right = one.candidate == one.label
        for pair in (per_class[str(one.label)], per_slice[_slice(sample_id, at)]):
            pair[0] += right
            pair[1] += 1
    return {
        "accuracy": sum(one.candidate == one.label for one, _ in known) / len(known) if known else None,
        "per_class": dict(per_class),
        "per_class_before": dict(per_class_before),
        "per_slice": dict(per_slice),
    }


def test_figures(tests: Sequence[Labelled], answers: Mapping[str, int | None]) -> dict[str, Any] | None:
    """Accuracy on samples that neither taught nor judged, with the answers by content digest; None without any."""
    known = [one for one in tests if one.content_digest in answers]
    if not known:
        return None
    per_class: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in known:
        per_class[str(one.label_id)][0] += answers[one.content_digest] == one.label_id
        per_class[str(one.label_id)][1] += 1
    right = sum(pair[0] for pair in per_class.values())
    return {"accuracy": right / len(known), "n": len(known), "per_class": dict(per_class)}


def _slice(sample_id: str, at: datetime) -> str:
    """The hour in which the sample was posted, which its id tells (UUIDv7: milliseconds since 1970 in 48 bits)."""
    came = datetime.fromtimestamp((UUID(sample_id).int >> 80) / 1000, UTC)
    return f"{came:%Y-%m-%dT%H}" if at - came <= RECENT else f"{came:%Y-%m-%d}T00"
