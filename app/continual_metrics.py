"""How well a learner keeps what it learned while it learns more: the field's figures, as pure functions.

Called by the API over versions and classes, by the worker label by label, and by the benchmarks over their test sets.
Plain Python; knows nothing of networks, storage or the wire.

A *table* a has one row for each evaluation and one column for each test set (a step's data, or a class): a[j][i] is
the share that was answered right of test set i after step j, `None` where it was not measured. `learned[i]` is the row
after which column i was learned, counted from 0; left out, step i taught column i. Unmeasured cells are passed over,
and where nothing is left to average the figure is `None`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

Table = Sequence[Sequence[float | None]]


def accuracy(table: Table) -> float | None:
    """ACC = 1/T · Σ_i a_{T,i}, each test set weighing the same (Lopez-Paz, Ranzato 2017, arXiv 1706.08840)."""
    return _mean(table[-1]) if table else None


def average_incremental_accuracy(table: Table, learned: Sequence[int] | None = None) -> float | None:
    """1/T · Σ_j AA_j, AA_j = 1/|S_j| · Σ_{i ∈ S_j} a_{j,i}, S_j what step j and those before it taught.

    Rebuffi et al. 2017, arXiv 1611.07725. Rows before anything was learned are passed over.
    """
    since = _learned(table, learned)
    return _mean(_mean(cell for cell, step in zip(row, since, strict=True) if step <= j) for j, row in enumerate(table))


def backward_transfer(table: Table, learned: Sequence[int] | None = None) -> float | None:
    """BWT = 1/(T−1) · Σ_{i<T} (a_{T,i} − a_{i,i}): below zero, later steps cost earlier ones (arXiv 1706.08840)."""
    return _mean(_less(table[-1][i], table[step][i]) for i, step in _before_the_last(table, learned))


def forward_transfer(
    table: Table, untrained: Sequence[float | None], learned: Sequence[int] | None = None
) -> float | None:
    """FWT = 1/(T−1) · Σ_{i≥2} (a_{i−1,i} − b_i): what earlier steps gave a test set ahead of its own (1706.08840).

    `untrained` is b, the accuracy of a freshly drawn network on each test set.
    """
    since = _learned(table, learned)
    return _mean(_less(table[step - 1][i], untrained[i]) for i, step in enumerate(since) if step >= 1)


def forgetting(table: Table, learned: Sequence[int] | None = None) -> float | None:
    """F = 1/(T−1) · Σ_{i<T} (max_{k<T} a_{k,i} − a_{T,i}): the best it ever was, less what it is now.

    Chaudhry et al. 2018, arXiv 1801.10112. *Max minus last*: some libraries take the first value instead of the best,
    which gives −BWT. Below zero when every test set is better than it ever was.
    """
    return _mean(_less(_most(row[i] for row in table[:-1]), table[-1][i]) for i, _ in _before_the_last(table, learned))


def average_anytime_accuracy(table: Table, seen: Sequence[int]) -> float | None:
    """AAA_t = 1/t · Σ_{j≤t} 1/k_j · Σ_{i≤k_j} a(E_i, f_j), rows being evaluations while it learns.

    Caccia et al. 2022, arXiv 2104.05025. `seen[j]` is k_j: how many test sets, in the columns' order, the learner had
    begun with by evaluation j.
    """
    return _mean(_mean(row[:known]) for row, known in zip(table, seen, strict=True) if known)


def min_accuracy(table: Table, learned: Sequence[int] | None = None) -> float | None:
    """min-ACC = 1/(k−1) · Σ_{i<k} min_{t_i<n≤t} a(E_i, f_n): how low each earlier test set fell after its step.

    De Lange et al. 2023, arXiv 2205.13452; t_i is `learned[i]`, t the last row, k the test set of the last row.
    """
    return _mean(_least(row[i] for row in table[step + 1 :]) for i, step in _before_the_last(table, learned))


def worst_case_accuracy(table: Table, learned: Sequence[int] | None = None) -> float | None:
    """WC-ACC_t = 1/k · a(E_k, f_t) + (1 − 1/k) · min-ACC_k (De Lange et al. 2023, arXiv 2205.13452).

    What the last row taught counts as it is now, everything else with the lowest it fell to. Where the last row
    taught several test sets at once, each has a share of 1/k.
    """
    since = _learned(table, learned)
    last = len(table) - 1
    return _mean(
        table[-1][i] if step == last else _least(row[i] for row in table[step + 1 :]) for i, step in enumerate(since)
    )


@dataclass(frozen=True)
class Prequential:
    """Prequential accuracy: each sample is answered by the model before it learns it (Gama et al. 2013, MLJ 90(3)).

    Whole: P_t = 1/t · Σ_s 1[ŷ_s = y_s]. Window: the same over the newest `window` samples. Fading:
    S_t = 1[ŷ_t = y_t] + η·S_{t−1}, N_t = 1 + η·N_{t−1}, P = S/N. Labels that follow each other alike flatter every
    learner: compare with one that repeats the last label. `seen` gives the next state and leaves this one as it is.
    """

    window_size: int = 1000
    fading_factor: float = 0.999
    n: int = 0
    right: int = 0
    newest: int = 0  # one bit a sample of the window, the newest lowest
    faded_right: float = 0.0
    faded_n: float = 0.0

    def __post_init__(self) -> None:
        if self.window_size < 1 or not 0 < self.fading_factor <= 1:
            raise ValueError("window_size is at least 1, and fading_factor above 0 and at most 1")

    def seen(self, right: bool) -> Self:
        """Give the state after one more sample, answered right or not."""
        return replace(
            self,
            n=self.n + 1,
            right=self.right + right,
            newest=(self.newest << 1 | right) & ((1 << self.window_size) - 1),
            faded_right=right + self.fading_factor * self.faded_right,
            faded_n=1 + self.fading_factor * self.faded_n,
        )

    @property
    def whole(self) -> float | None:
        return self.right / self.n if self.n else None

    @property
    def window(self) -> float | None:
        return self.newest.bit_count() / min(self.n, self.window_size) if self.n else None

    @property
    def fading(self) -> float | None:
        return self.faded_right / self.faded_n if self.n else None

    def figures(self) -> dict[str, float | int | None]:
        """Give what a version records: `whole`, `window`, `fading` and `n`."""
        return {"whole": self.whole, "window": self.window, "fading": self.fading, "n": self.n}

    def to_json(self) -> dict[str, Any]:
        """Give the state as JSON's kinds; the window as hexadecimal digits, a bit a sample."""
        return {**asdict(self), "newest": f"{self.newest:x}"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Take up the state that `to_json` gave."""
        return cls(**{**data, "newest": int(data["newest"], 16)})


def first_measured(table: Table) -> list[int | None]:
    """Give for each column the row in which it is first measured: when a class, as far as one can see, was learned."""
    width = len(table[0]) if table else 0
    return [next((j for j, row in enumerate(table) if row[i] is not None), None) for i in range(width)]


def _learned(table: Table, learned: Sequence[int] | None) -> Sequence[int]:
    width = len(table[0]) if table else 0
    since = range(width) if learned is None else learned
    if any(len(row) != width for row in table) or len(since) != width:
        raise ValueError(f"every row and `learned` have one entry for each of the {width} columns")
    if any(not 0 <= step < len(table) for step in since):
        raise ValueError(f"`learned` counts the {len(table)} rows from 0; leave columns out that no row taught")
    return since


def _before_the_last(table: Table, learned: Sequence[int] | None) -> Iterator[tuple[int, int]]:
    """Columns that were learned before the last row, each with its row."""
    return ((i, step) for i, step in enumerate(_learned(table, learned)) if step < len(table) - 1)


def _known(cells: Iterable[float | None]) -> list[float]:
    return [cell for cell in cells if cell is not None]


def _mean(cells: Iterable[float | None]) -> float | None:
    known = _known(cells)
    return sum(known) / len(known) if known else None


def _most(cells: Iterable[float | None]) -> float | None:
    return max(_known(cells), default=None)


def _least(cells: Iterable[float | None]) -> float | None:
    return min(_known(cells), default=None)


def _less(cell: float | None, other: float | None) -> float | None:
    return None if cell is None or other is None else cell - other
