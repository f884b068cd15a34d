"""Two versions on the same held-out samples: what the second loses, and whether chance would explain it.

Called by the gate, which decides what follows. Pure functions of plain data.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LEAST_FOR_MARGIN = 30
"""Held-out samples below which any loss is more than the margin."""


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same samples."""

    n: int
    b: int  # right before, wrong after, and no class that is new took it
    c: int  # wrong before, right after
    p: float  # of the exact test that it got worse
    before: float | None  # accuracies; None without samples
    after: float | None
    taken: int = 0  # right before, answered after with a class that is new
    share: float = 0.0  # of the classes that are new, among the candidate's

    @property
    def taken_beyond_share(self) -> bool:
        """Whether classes that are new took more than guessing would give them, and two deviations of it."""
        share = min(self.share, 1.0)
        return self.taken > share * self.n + 2 * math.sqrt(self.n * share * (1 - share)) + 1e-9

    def loses_more_than(self, samples: float) -> bool:
        # A hair more, so that 2 of 100 is within 0.02 in floating point too.
        return self.b - self.c > samples + 1e-9

    def loses_what_matters(self, margin: float) -> bool:
        """Whether the loss is more than the margin; of fewer samples than it is made for, any loss is."""
        return self.n < LEAST_FOR_MARGIN or self.loses_more_than(margin * self.n)

    def floor(self, margin: float, deviations: float = 1.0) -> float:
        """How many samples may be lost: the margin, or so many deviations of what chance alone would move."""
        return max(margin * self.n, deviations * math.sqrt(self.b + self.c))


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


def compare(
    answers: Iterable[tuple[int, int | None, int | None]], new: frozenset[int] = frozenset(), share: float = 0.0
) -> Comparison:
    """Count over (label, before, after); what a class of `new` took is no loss, but counted."""
    n = b = c = taken = right_before = right_after = 0
    for label, before, after in answers:
        was, now = before == label, after == label
        n += 1
        right_before += was
        right_after += now
        lost = was and not now
        taken += lost and after in new
        b += lost and after not in new
        c += now and not was
    if n == 0:
        return Comparison(0, 0, 0, 1.0, None, None)
    return Comparison(n, b, c, p_worse(b, c), right_before / n, right_after / n, taken, share)
