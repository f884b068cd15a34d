"""How a set is divided into stages, what each takes, and what comes first in it."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from app.cli.importing.selection import Answer, informative_first
from app.cli.importing.stages import Plan, Pool, in_turns
from app.cli.importing.survey import Item

COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 90), min_size=1)


def items(counts: dict[str, int]) -> list[Item]:
    return [Item(place, label, f"{label}{place}") for label, count in counts.items() for place in range(count)]


def take_all(pool: Pool, plan: Plan, stop_after: int | None = None) -> list[list[Item]]:
    return [pool.take(pool.wanted(stage)) for stage in plan.stages[:stop_after]]


def test_ten_of_each_come_first_and_each_stage_goes_four_times_as_far() -> None:
    plan = Plan.of({"a": 700, "b": 30})

    assert [(stage.target, stage.last) for stage in plan.stages] == [
        (10, False),
        (40, False),
        (160, False),
        (640, False),
        (700, True),
    ]
    assert plan.sizes({"a": 700, "b": 30}) == [20, 50, 120, 480, 60]


def test_a_small_set_is_one_stage() -> None:
    assert [stage.target for stage in Plan.of({"a": 10, "b": 3}).stages] == [10]


@given(COUNTS, st.integers(1, 12), st.integers(2, 5))
def test_the_stages_take_each_sample_once_and_as_many_as_the_plan_says(
    counts: dict[str, int], first: int, growth: int
) -> None:
    plan = Plan.of(counts, first, growth)
    pool = Pool(items(counts), (), seed=0)

    taken = take_all(pool, plan)

    assert [len(stage) for stage in taken] == plan.sizes(counts)
    assert sorted(item.client_id for stage in taken for item in stage) == sorted(
        item.client_id for item in items(counts)
    )
    assert len(pool) == 0
    assert Counter(item.label for item in taken[0]) == {label: min(first, count) for label, count in counts.items()}


@given(COUNTS, st.integers(0, 400), st.integers(0, 3))
def test_an_import_goes_on_in_the_stage_it_was_in(counts: dict[str, int], posted: int, seed: int) -> None:
    plan = Plan.of(counts, 5)
    order = [item for stage in take_all(Pool(items(counts), (), seed), plan) for item in stage]
    before = {item.client_id for item in order[:posted]}

    after = take_all(Pool(items(counts), before, seed), plan)

    totals = Counter(item.label for item in order[:posted])
    for stage, taken in zip(plan.stages, after, strict=True):
        totals.update(item.label for item in taken)
        wanted = {label: min(stage.target, count) for label, count in counts.items()}
        assert all(totals[label] >= count for label, count in wanted.items())
    assert before.isdisjoint(item.client_id for stage in after for item in stage)
    assert totals == Counter(counts)


@given(COUNTS)
def test_any_beginning_has_its_share_of_each_class(counts: dict[str, int]) -> None:
    rows = [[item for item in items(counts) if item.label == label] for label in counts]
    total = sum(counts.values())

    merged = in_turns(rows)

    for length in range(total + 1):
        begun = Counter(item.label for item in merged[:length])
        assert all(abs(begun[label] - length * count / total) <= len(counts) for label, count in counts.items())


@given(COUNTS, st.integers(1, 60))
def test_the_candidates_are_bounded_and_of_every_class(counts: dict[str, int], limit: int) -> None:
    pool = Pool(items(counts), (), seed=0)
    wanted = pool.wanted(Plan.of(counts, 10).stages[0])

    candidates = pool.candidates(wanted, 2, limit)

    assert len(candidates) <= limit
    assert len({item.client_id for item in candidates}) == len(candidates)
    if limit >= 2 * sum(wanted.values()):
        assert all(
            count == min(counts[label], 2 * wanted[label])
            for label, count in Counter(item.label for item in candidates).items()
        )


def test_a_margin_is_negative_when_the_answer_is_wrong() -> None:
    answer = Answer((("a", 0.75), ("b", 0.25)))

    assert answer.margin("a") == 0.5
    assert answer.margin("b") == -0.5
    assert answer.margin("c") == -0.75
    assert Answer(()).margin("a") == 0.0


def test_half_of_what_is_wanted_are_the_least_sure_and_half_are_random() -> None:
    candidates = items({"a": 40})
    answers = {item.client_id: Answer((("a", 0.5 + item.index / 100), ("b", 0.2))) for item in candidates}

    ordered = informative_first(candidates, answers, {"a": 20}, seed=1)

    chosen = {item.index for item in ordered[:20]}
    assert set(range(10)) <= chosen
    assert max(chosen) > 20
    assert sorted(item.index for item in ordered) == list(range(40))
    assert ordered == informative_first(candidates, answers, {"a": 20}, seed=1)


@given(COUNTS, st.integers(0, 5))
def test_what_comes_first_is_taken_first_and_classes_stay_balanced(counts: dict[str, int], seed: int) -> None:
    pool = Pool(items(counts), (), seed)
    stage = Plan.of(counts, 8).stages[0]
    wanted = pool.wanted(stage)
    candidates = pool.candidates(wanted, 2, 10_000)
    answers = {item.client_id: Answer((("a", item.index / 100),)) for item in candidates}

    ordered = informative_first(candidates, answers, wanted, seed)
    taken = pool.take(wanted, ordered)

    assert Counter(item.label for item in taken) == wanted
    for label, count in wanted.items():
        first = [item.client_id for item in ordered if item.label == label][:count]
        assert sorted(first) == sorted(item.client_id for item in taken if item.label == label)
