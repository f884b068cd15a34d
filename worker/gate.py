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
  label moves it little, and what it loses by many is lost against the anchor (docs/decisions/0012). It may lose
  2·√(b + c) (docs/decisions/0015);
- *inconclusive*: everything else.
A class that live does not know is no part of n. From C samples on it needs recall ≥ 1/C, C being the number of the
candidate's classes; of fewer, guessing gets less than one right.
Knowing more classes costs answers right before, also where nothing is forgotten. So what a sample is lost *to* counts:
lost to a class that the other version does not know, or that is young (fewer settled samples than half an even share),
it is no part of b; but such classes may take no more than their even share, and what chance adds
(docs/decisions/0014). Against the anchor, n is of the classes that it knows.
If only such classes were held out, n is 0 and nothing is known of what may have been lost, so it is held back.
While live was never taught there is nothing to lose and nothing it knows: every held-out sample whose class the
candidate knows counts, and the recall of 1/C is asked of all of them together.
n = 0 is held back, unless live is `unproven`: then the early-stopping fold decides.
A claim brings its own held-out samples, so a batch of wrong labels vouches for itself. Therefore samples held out
*before* the claim must by themselves pass the test, and lose no more than the margin, or two samples.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from worker.comparison import LEAST_FOR_MARGIN, Comparison, compare, holm

LEAST_FOR_CLASS_TEST = 20

SOLVED_DEVIATIONS = 2.0
"""Of b − c when nothing changed, how many a solved head may lose: each claim is judged, and the best that ever was is
the measure, so that one would be passed by right labels too often (docs/decisions/0015)."""


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
    solved: bool = False  # the candidate's head is in closed form: it may lose what chance moves, however few judge
    fold: FoldEvidence | None = None
    anchor_labels: frozenset[int] | None = None  # None: those of live
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    decision: Decision
    reason: str
    metrics: dict[str, Any]


def young(q: Question) -> frozenset[int]:
    """The candidate's classes of which so few samples were held out before that these cannot speak for them."""
    counts = Counter(one.label for one in q.judged if one.settled and one.label in q.candidate_labels)
    enough = counts.total() / max(len(q.candidate_labels), 1) / 2
    return frozenset(label for label in q.candidate_labels if counts[label] < enough)


def judge(question: Question) -> Judgement:
    """Decide. The reason speaks of the first rule that decided; the metrics hold every number looked at."""
    q = question
    known = q.candidate_labels if q.untrained else q.live_labels
    old = [sample for sample in q.judged if sample.label in known]
    fresh = sorted({s.label for s in q.judged if s.label in q.candidate_labels and s.label not in known})
    of_anchor = q.live_labels if q.anchor_labels is None else q.anchor_labels
    few, count = young(q), max(len(q.candidate_labels), 1)
    to_live, to_anchor = (q.candidate_labels - labels | few for labels in (q.live_labels, of_anchor))
    share = len(to_live) / count
    overall = compare(((s.label, s.live, s.candidate) for s in old), to_live, share)
    anchor = compare(
        ((s.label, s.anchor, s.candidate) for s in old if q.untrained or s.label in of_anchor),
        to_anchor,
        len(to_anchor) / count,
    )
    settled = compare(((s.label, s.live, s.candidate) for s in old if s.settled), to_live, share)
    by_label: dict[int, list[tuple[int, int | None, int | None]]] = defaultdict(list)
    for s in q.judged:
        by_label[s.label].append((s.label, s.live, s.candidate))
    classes = {
        label: compare(by_label[label], to_live - {label}, share) for label in sorted({sample.label for sample in old})
    }
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
        if seen.after is not None and seen.after < chance and seen.n >= len(q.candidate_labels):
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
    deviations = SOLVED_DEVIATIONS if q.solved else 1.0
    of_overall, of_anchor = (seen.floor(q.margin, deviations) for seen in (overall, anchor))
    if overall.n < LEAST_FOR_MARGIN and not q.solved:
        if overall.b > overall.c:
            return Decision.INCONCLUSIVE, f"{_moved(overall)}; with fewer than 30 none may be lost"
    elif overall.loses_more_than(of_overall):
        return Decision.INCONCLUSIVE, f"{_moved(overall)}; {_floor(overall, of_overall)}"
    if anchor.loses_more_than(of_anchor):
        return Decision.INCONCLUSIVE, (
            f"{_moved(anchor)} against the best version of the line; {_floor(anchor, of_anchor)}"
        )
    for seen, of in ((overall, ""), (anchor, " against the best version of the line")):
        if seen.taken_beyond_share:
            return Decision.INCONCLUSIVE, f"{_moved(seen)}{of}; an even share for them is {_percent(seen.share)}"
    of_settled = max(2.0, q.margin * settled.n)
    if q.solved:
        of_settled = max(of_settled, settled.floor(q.margin, deviations))
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
    taken = f", {seen.taken} of them taken by classes that are new" if seen.taken else ""
    return f"{words} {_percent(seen.before or 0.0)} → {_percent(seen.after or 0.0)} (n={seen.n}{lost}{taken})"


def _name(q: Question, label: int) -> str:
    return f"'{q.names.get(label, f'label {label}')}'"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
