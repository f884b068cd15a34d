"""What an import comes to, in words and as data."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from app.cli.importing.stages import Plan
from app.cli.importing.survey import Survey
from app.cli.printing import percent

REASONS = 3  # told of each kind
LINES = 5


@dataclass
class Report:
    """The end of an import; counts are of this set's samples alone."""

    model: str
    read: int
    classes: int
    to_learn: int
    exact_duplicates: int
    near_duplicates: int
    conflicting: int
    also_in_test: int
    unreadable: int
    posted: int = 0  # the server has them, from this run or an earlier one
    known: int = 0  # posted again in this run
    learned: int = 0
    held_out: int = 0
    waiting: int = 0
    quarantined: int = 0
    withdrawn: int = 0
    refused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # of quarantine and refusal
    test_posted: int = 0
    live: int = 0
    accuracy: float | None = None
    test_accuracy: float | None = None
    tested: int = 0
    first_live_seconds: float | None = None
    seconds: float = 0.0

    @classmethod
    def of(cls, model: str, survey: Survey) -> "Report":
        """Begin with what the set is."""
        return cls(
            model=model,
            read=survey.read,
            classes=len(survey.per_class),
            to_learn=len(survey.train),
            exact_duplicates=survey.exact,
            near_duplicates=survey.near,
            conflicting=survey.conflicting,
            also_in_test=survey.leaked,
            unreadable=len(survey.unreadable),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def in_words(self) -> list[str]:
        """The sentences a person reads at the end."""
        fates = [f"{self.learned:,} learned"]
        fates += [f"{self.held_out:,} held out to judge by"] if self.held_out else []
        fates += [f"{self.waiting:,} waiting in the queue"] if self.waiting else []
        fates += [f"{self.quarantined:,} quarantined"] if self.quarantined else []
        fates += [f"{self.withdrawn:,} withdrawn"] if self.withdrawn else []
        taught = (
            f"{self.posted:,} of {_samples(self.to_learn)} in {self.classes} classes taught in {self.seconds:.0f} s"
        )
        lines = [f"{taught}: {', '.join(fates)}."]
        if self.test_posted:
            lines.append(f"{_samples(self.test_posted)} posted as a test split that never teaches.")
        if self.known:
            lines.append(f"{self.known:,} of them the server knew already.")
        if self.refused:
            lines.append(f"{self.refused:,} refused by the server.")
        lines += [f"  {count:,} × {reason}" for reason, count in list(self.reasons.items())[:REASONS]]
        first = (
            "" if self.first_live_seconds is None else f" (the first taught one after {self.first_live_seconds:.1f} s)"
        )
        lines.append(f"Version {self.live} is live{first}{self._rightness()}.")
        return lines

    def _rightness(self) -> str:
        parts = []
        if self.accuracy is not None:
            parts.append(f"{percent(self.accuracy)} right on its held-out samples")
        if self.test_accuracy is not None:
            parts.append(f"{percent(self.test_accuracy)} right on {_samples(self.tested)} of the test set")
        return f": {', '.join(parts)}" if parts else ""


def survey_in_words(survey: Survey) -> list[str]:
    """What the pass over the set found."""
    counts = survey.per_class
    least, most = min(counts.values()), max(counts.values())
    spread = f"{most:,} of each" if least == most else f"{least:,} to {most:,} of each"
    lines = [f"{_samples(len(survey.train))} to teach in {len(counts)} {_plural('class', len(counts))}, {spread}."]
    if survey.test:
        lines.append(f"{_samples(len(survey.test))} to test with.")
    left_out = [
        (survey.exact, "exact duplicates"),
        (survey.near, "near-duplicates"),
        (survey.leaked, "that stand in the test set too"),
        (survey.conflicting, "whose labels contradict each other"),
        (len(survey.unreadable), "that cannot be read"),
    ]
    told = ", ".join(f"{count:,} {what}" for count, what in left_out if count)
    if told:
        lines.append(f"Left out: {told}.")
    lines += _first(survey.conflicts)
    lines += _first(survey.unreadable)
    return lines


def plan_in_words(survey: Survey, plan: Plan) -> list[tuple[str, str, str]]:
    """A row for each stage: its number, how many of each class it goes up to, how many samples it posts."""
    sizes = plan.sizes(survey.per_class)
    return [
        (str(stage.number), "all" if stage.last else f"up to {stage.target:,}", f"{size:,}")
        for stage, size in zip(plan.stages, sizes, strict=True)
    ]


def top_reasons(reasons: Sequence[str]) -> dict[str, int]:
    """Reasons with their counts, the most frequent first; what differs in numbers of a version alone is one."""
    return dict(Counter(reasons).most_common())


def _first(lines: Sequence[str]) -> list[str]:
    shown = [f"  {line}" for line in lines[:LINES]]
    return [*shown, f"  … and {len(lines) - LINES:,} more"] if len(lines) > LINES else shown


def _samples(count: int) -> str:
    return f"{count:,} {_plural('sample', count)}"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"
