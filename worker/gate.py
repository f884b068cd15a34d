"""May the candidate replace the live version? Promoted, rejected or inconclusive, with the reason in words.

Called by the worker's update with what three versions say of the held-out samples. Pure functions of plain data.

The rules. Of n held-out samples of the classes that live knows, b are right by live and wrong by the candidate, c the
reverse; the candidate answers with all its labels.
- *rejected*: it lost more than the margin, and the exact one-sided test says that this is no chance, overall or in a
  class with n ≥ 20 (Holm over those classes). What the margin allows is no ground to refuse, however many samples
  prove it (docs/decisions/0011);
- *promoted*: b − c ≤ max(margin·n, √(b + c)) against live and against the anchor; with n < 30 against live only if
  c ≥ b. √(b + c) is the standard deviation of b − c when nothing changed: below some hundred samples the margin alone
  is finer than the measurement (docs/decisions/0008). A head that is solved has no such lower bound: a single
  label moves it little, and what it loses by many is lost against the anchor (docs/decisions/0012);
- *inconclusive*: everything else.
A class that live does not know is no part of n: it needs recall ≥ 1/C, C being the number of the candidate's classes.
If only such classes were held out, n is 0 and nothing is known of what may have been lost, so it is held back.
While live was never taught there is nothing to lose and nothing it knows: every held-out sample whose class the
candidate knows counts, and the recall of 1/C is asked of all of them together.
n = 0 is held back, unless live is `unproven`: then the early-stopping fold decides.
A claim brings its own held-out samples, so a batch of wrong labels vouches for itself. Therefore samples held out
*before* the claim must by themselves pass the test, and lose no more than the margin, or two samples.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

LEAST_FOR_MARGIN = 30
LEAST_FOR_CLASS_TEST = 20


YOUNG_SAMPLES = 100
"""Samples to learn from below which nothing held out yet is no wonder."""


class Decision(StrEnum):
    PROMOTED = "promoted"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Judged:
    """A held-out sample: its label and the label ids that three versions predict (None: no class known)."""

    label: int
    live: int | None
    anchor: int | None
    candidate: int | None
    settled: bool = True  # held out before this claim


@dataclass(frozen=True)
class FoldEvidence:
    """What the early-stopping fold says; only looked at when nothing was held out."""

    n: int
    accuracy: float
    majority: float  # accuracy of always answering the most frequent class
    before: float | None = None  # accuracy of the weights the update started from


@dataclass(frozen=True)
class Question:
    """All that the gate looks at."""

    judged: Sequence[Judged]
    live_labels: frozenset[int]
    candidate_labels: frozenset[int]
    margin: float
    alpha: float
    untrained: bool = False  # live was never taught
    unproven: bool = False  # no version of the line was ever judged on held-out samples
    least_for_margin: int = LEAST_FOR_MARGIN  # held-out samples below which none may be lost
    fold: FoldEvidence | None = None
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same samples."""

    n: int
    b: int  # right before, wrong after
    c: int  # wrong before, right after
    p: float  # of the exact test that it got worse
    before: float | None  # accuracies; None without samples
    after: float | None

    def loses_more_than(self, samples: float) -> bool:
        # A hair more, so that 2 of 100 is within 0.02 in floating point too.
        return self.b - self.c > samples + 1e-9

    def loses_what_matters(self, margin: float) -> bool:
        """Whether the loss is more than the margin; of fewer samples than it is made for, any loss is."""
        return self.n < LEAST_FOR_MARGIN or self.loses_more_than(margin * self.n)

    def floor(self, margin: float) -> float:
        """How many samples may be lost: the margin, or what chance alone would move."""
        return max(margin * self.n, math.sqrt(self.b + self.c))


@dataclass(frozen=True)
class Judgement:
    decision: Decision
    reason: str
    metrics: dict[str, Any]


def p_worse(b: int, c: int) -> float:
    """One-sided exact McNemar test: P(X ≥ b), X ~ Binomial(b + c, ½), that the candidate is no worse than live.

    McNemar 1947, Psychometrika 12; p = Σ_{k=b}^{b+c} C(b+c, k) / 2^(b+c), summed in whole numbers.
    """
    discordant = b + c
    if b == 0:
        return 1.0
    term = math.comb(discordant, b)
    total = term
    for k in range(b, discordant):
        term = term * (discordant - k) // (k + 1)
        total += term
    # Whole numbers of this size overflow a float one by one, but not their quotient.
    return min(1.0, total / (1 << discordant))


def holm(p_values: Mapping[int, float], alpha: float) -> set[int]:
    """Which hypotheses fall under Holm's step-down procedure (1979): p_(i) ≤ α/(m − i + 1), stopping at the first that
    does not; strictly less here, as everywhere in the gate.
    """
    rejected: set[int] = set()
    ordered = sorted(p_values, key=lambda key: (p_values[key], key))
    for position, key in enumerate(ordered):
        if p_values[key] >= alpha / (len(ordered) - position):
            break
        rejected.add(key)
    return rejected


def compare(answers: Iterable[tuple[int, int | None, int | None]]) -> Comparison:
    """Count over (label, before, after)."""
    n = b = c = right_before = right_after = 0
    for label, before, after in answers:
        was, now = before == label, after == label
        n += 1
        right_before += was
        right_after += now
        b += was and not now
        c += now and not was
    if n == 0:
        return Comparison(0, 0, 0, 1.0, None, None)
    return Comparison(n, b, c, p_worse(b, c), right_before / n, right_after / n)


def judge(question: Question) -> Judgement:
    """Decide. The reason speaks of the first rule that decided; the metrics hold every number looked at."""
    q = question
    known = q.candidate_labels if q.untrained else q.live_labels
    old = [sample for sample in q.judged if sample.label in known]
    fresh = sorted({s.label for s in q.judged if s.label in q.candidate_labels and s.label not in known})
    overall = compare((s.label, s.live, s.candidate) for s in old)
    anchor = compare((s.label, s.anchor, s.candidate) for s in old)
    settled = compare((s.label, s.live, s.candidate) for s in old if s.settled)
    by_label: dict[int, list[tuple[int, int | None, int | None]]] = defaultdict(list)
    for s in q.judged:
        by_label[s.label].append((s.label, s.live, s.candidate))
    classes = {label: compare(by_label[label]) for label in sorted({s.label for s in old})}
    new = {label: compare(by_label[label]) for label in fresh}
    metrics: dict[str, Any] = {
        **asdict(overall),
        "anchor": asdict(anchor),
        "settled": asdict(settled),
        "classes": {str(label): asdict(comparison) for label, comparison in classes.items()},
        "new_classes": {str(label): asdict(comparison) for label, comparison in new.items()},
        "fold": None if q.fold is None else asdict(q.fold),
        "margin": q.margin,
        "alpha": q.alpha,
    }
    decision, reason = (
        _rejection(q, overall, settled, classes)
        or _doubt_about_new(q, overall, new)
        or (_by_the_fold(q) if overall.n == 0 else _by_the_margin(q, overall, anchor, settled))
    )
    return Judgement(decision, reason, metrics)


def too_early(n: int, samples: int) -> bool:
    """Whether an inconclusive answer is owed to the holdout's size, not to the batch (docs/decisions/0010).

    n samples were held out; `samples` are there to learn from, in the line or in the claim, whichever are more.
    """
    return n < LEAST_FOR_MARGIN if n else samples < YOUNG_SAMPLES


_Answer = tuple[Decision, str]


def _rejection(
    q: Question, overall: Comparison, settled: Comparison, classes: Mapping[int, Comparison]
) -> _Answer | None:
    tested = {label: seen.p for label, seen in classes.items() if seen.n >= LEAST_FOR_CLASS_TEST}
    worse = {label for label in holm(tested, q.alpha) if classes[label].loses_what_matters(q.margin)}
    floor = f"floor is −{100 * q.margin:.1f} points"
    if worse:
        label = min(worse, key=lambda key: (tested[key], key))
        return Decision.REJECTED, f"{_moved(classes[label], _name(q, label))}; {floor}"
    if overall.p < q.alpha and overall.loses_what_matters(q.margin):
        return Decision.REJECTED, f"{_moved(overall)}; {floor}"
    if settled.p < q.alpha and settled.loses_what_matters(q.margin):
        return Decision.REJECTED, f"{_moved(settled)} on what was held out before this claim; {floor}"
    return None


def _doubt_about_new(q: Question, overall: Comparison, new: Mapping[int, Comparison]) -> _Answer | None:
    if not q.candidate_labels:
        return Decision.INCONCLUSIVE, "the candidate knows no class"
    chance = 1 / len(q.candidate_labels)
    for label, seen in new.items():
        if seen.after is not None and seen.after < chance:
            return Decision.INCONCLUSIVE, (
                f"recall of the new class {_name(q, label)} is {_percent(seen.after)} (n={seen.n}); "
                f"guessing gives {_percent(chance)}"
            )
    if q.untrained and overall.after is not None and overall.after < chance:
        return Decision.INCONCLUSIVE, (
            f"accuracy is {_percent(overall.after)} (n={overall.n}); guessing gives {_percent(chance)}"
        )
    return None


def _by_the_fold(q: Question) -> _Answer:
    fold = q.fold
    if not q.unproven and not q.untrained:
        return Decision.INCONCLUSIVE, "nothing of the classes that live knows is held out yet (n=0)"
    if fold is None or fold.n == 0:
        return Decision.INCONCLUSIVE, "nothing is held out yet (n=0), and the early-stopping fold is empty"
    words = (
        f"nothing is held out yet; on the early-stopping fold accuracy is {_percent(fold.accuracy)} (n={fold.n}), "
        f"the most frequent class alone gives {_percent(fold.majority)}"
    )
    if fold.accuracy <= fold.majority:
        return Decision.INCONCLUSIVE, words
    if not q.untrained and fold.before is not None and fold.accuracy < fold.before:
        return Decision.INCONCLUSIVE, f"{words} and live {_percent(fold.before)}"
    return Decision.PROMOTED, words


def _by_the_margin(q: Question, overall: Comparison, anchor: Comparison, settled: Comparison) -> _Answer:
    if overall.n < q.least_for_margin:
        if overall.b > overall.c:
            return Decision.INCONCLUSIVE, f"{_moved(overall)}; with fewer than 30 none may be lost"
    elif overall.loses_more_than(overall.floor(q.margin)):
        return Decision.INCONCLUSIVE, f"{_moved(overall)}; {_floor(overall, overall.floor(q.margin))}"
    if anchor.loses_more_than(anchor.floor(q.margin)):
        floor = _floor(anchor, anchor.floor(q.margin))
        return Decision.INCONCLUSIVE, f"{_moved(anchor)} against the best version of the line; {floor}"
    of_settled = max(2.0, q.margin * settled.n)
    if settled.loses_more_than(of_settled):
        floor = _floor(settled, of_settled)
        return Decision.INCONCLUSIVE, f"{_moved(settled)} on what was held out before this claim; {floor}"
    return Decision.PROMOTED, _moved(overall)


def _floor(seen: Comparison, samples: float) -> str:
    return f"floor is −{100 * samples / max(seen.n, 1):.1f} points"


def _moved(seen: Comparison, of: str = "") -> str:
    """Say "accuracy on 'dog' 81.0 % → 74.5 % (n=200, p=0.004)"; where nothing was lost, p has nothing to say."""
    words = f"accuracy on {of}" if of else "accuracy"
    p = f", p={seen.p:.3f}" if seen.p >= 0.001 else ", p<0.001"
    lost = p if seen.b > seen.c else ""
    return f"{words} {_percent(seen.before or 0.0)} → {_percent(seen.after or 0.0)} (n={seen.n}{lost})"


def _name(q: Question, label: int) -> str:
    return f"'{q.names.get(label, f'label {label}')}'"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
