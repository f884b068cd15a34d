"""The gate against tables worked out by hand, and properties that must hold whatever is put in."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.comparison import compare, holm, p_worse
from worker.gate import Decision, FoldEvidence, Judged, Question, judge, too_early, young

CAT, DOG, BIRD = 1, 2, 3


def answers(
    label: int, *, both: int = 0, b: int = 0, c: int = 0, neither: int = 0, settled: bool = True
) -> list[Judged]:
    """Samples of one class by who is right: both, live alone (b), the candidate alone (c), neither."""
    wrong = 99
    return (
        [Judged(label, label, label, label, settled)] * both
        + [Judged(label, label, label, wrong, settled)] * b
        + [Judged(label, wrong, wrong, label, settled)] * c
        + [Judged(label, wrong, wrong, wrong, settled)] * neither
    )


def question(judged: list[Judged], **changes: object) -> Question:
    plain = Question(
        judged=judged,
        live_labels=frozenset({CAT, DOG}),
        candidate_labels=frozenset({CAT, DOG}),
        margin=0.02,
        alpha=0.05,
        names={CAT: "cat", DOG: "dog", BIRD: "bird"},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        (0, 0, 1.0),
        (0, 7, 1.0),
        (1, 0, 1 / 2),
        (4, 0, 1 / 16),
        (5, 0, 1 / 32),
        (3, 1, 5 / 16),  # (C(4,3) + C(4,4)) / 2^4
        (8, 2, 56 / 1024),  # (45 + 10 + 1) / 2^10
        (9, 1, 11 / 1024),
        (5, 5, 638 / 1024),  # ½ + C(10,5) / 2^11
    ],
)
def test_the_exact_test_agrees_with_the_binomial_table(b: int, c: int, p: float) -> None:
    assert p_worse(b, c) == pytest.approx(p, rel=1e-12)


def test_the_exact_test_stays_a_number_for_thousands_of_samples() -> None:
    assert p_worse(2000, 0) == pytest.approx(0.5**2000, abs=1e-300)
    assert p_worse(1000, 1000) == pytest.approx(0.5 + math.comb(2000, 1000) / 2**2001)
    assert p_worse(0, 2000) == 1.0


def test_holm_steps_down_and_stops_at_the_first_that_holds() -> None:
    # α/3 = 0.0167, α/2 = 0.025, α = 0.05: the second does not fall, so the third is not looked at.
    assert holm({1: 0.01, 2: 0.03, 3: 0.04}, 0.05) == {1}
    assert holm({1: 0.01, 2: 0.02, 3: 0.04}, 0.05) == {1, 2, 3}
    assert holm({1: 0.02, 2: 0.5, 3: 0.5}, 0.05) == set()
    assert holm({}, 0.05) == set()


def test_a_candidate_that_lost_overall_is_rejected() -> None:
    judgement = judge(question(answers(CAT, both=60, b=5)))
    assert judgement.decision is Decision.REJECTED
    assert (judgement.metrics["n"], judgement.metrics["b"], judgement.metrics["c"]) == (65, 5, 0)
    assert judgement.metrics["p"] == pytest.approx(1 / 32)


def test_a_loss_within_the_margin_is_no_ground_to_refuse_however_sure_it_is() -> None:
    judgement = judge(question(answers(CAT, both=780, b=18, c=8), margin=0.02))
    assert judgement.metrics["p"] < 0.05
    assert judgement.decision is Decision.PROMOTED
    assert judge(question(answers(CAT, both=780, b=30, c=8), margin=0.02)).decision is Decision.REJECTED


def test_a_class_that_lost_rejects_though_the_whole_gained_and_the_reason_names_it() -> None:
    judged = answers(CAT, c=60, both=40) + answers(DOG, both=149, b=13, neither=38)
    judgement = judge(question(judged))
    assert judgement.decision is Decision.REJECTED
    assert judgement.reason == "accuracy on 'dog' 81.0 % → 74.5 % (n=200, p<0.001); floor is −2.0 points"


def test_a_class_of_fewer_than_twenty_is_not_tested_by_itself() -> None:
    judged = answers(DOG, both=13, b=6) + answers(CAT, both=40, c=6)
    assert judge(question(judged)).decision is Decision.PROMOTED
    judged = answers(DOG, both=14, b=6) + answers(CAT, both=40, c=6)
    assert judge(question(judged)).decision is Decision.REJECTED


def test_with_two_classes_the_better_of_two_losses_needs_half_the_alpha() -> None:
    # p = 1/32 = 0.031 in one class: under α, over α/2.
    judged = answers(DOG, both=20, b=5) + answers(CAT, both=40, c=5)
    assert judge(question(judged)).decision is Decision.PROMOTED


@pytest.mark.parametrize(
    ("b", "c", "decision"),
    [
        (2, 0, Decision.PROMOTED),  # exactly the margin of 100
        (3, 0, Decision.INCONCLUSIVE),  # over the margin, p = 1/8
        (12, 10, Decision.PROMOTED),
        (13, 10, Decision.INCONCLUSIVE),
        (0, 9, Decision.PROMOTED),
    ],
)
def test_the_margin_decides_what_the_test_does_not_reject(b: int, c: int, decision: Decision) -> None:
    assert judge(question(answers(CAT, both=100 - b - c, b=b, c=c))).decision is decision


@pytest.mark.parametrize(
    ("b", "c", "decision"),
    [
        (1, 0, Decision.PROMOTED),
        (2, 0, Decision.INCONCLUSIVE),  # √2 < 2
        (3, 1, Decision.PROMOTED),  # √4 = 2, though the margin of 50 is one sample
        (4, 1, Decision.INCONCLUSIVE),
        (5, 2, Decision.INCONCLUSIVE),  # √7 < 3
    ],
)
def test_a_loss_that_chance_alone_would_bring_is_let_through(b: int, c: int, decision: Decision) -> None:
    assert judge(question(answers(CAT, both=50 - b - c, b=b, c=c))).decision is decision


@pytest.mark.parametrize(
    ("both", "b", "c", "decision"),
    [
        (28, 1, 0, Decision.INCONCLUSIVE),  # 29 samples: none may be lost
        (27, 1, 1, Decision.PROMOTED),
        (0, 0, 1, Decision.PROMOTED),
        (0, 1, 0, Decision.INCONCLUSIVE),
        (24, 5, 0, Decision.REJECTED),  # p = 1/32
        (25, 4, 0, Decision.INCONCLUSIVE),  # p = 1/16
    ],
)
def test_under_thirty_samples_no_loss_at_all_is_let_through(both: int, b: int, c: int, decision: Decision) -> None:
    judgement = judge(question(answers(CAT, both=both, b=b, c=c), margin=0.5))
    assert judgement.decision is decision


def test_small_losses_do_not_add_up_because_the_anchor_remembers() -> None:
    # Against live nothing is lost; against the best version of the line three of a hundred are.
    judged = [Judged(CAT, CAT, CAT, CAT)] * 97 + [Judged(CAT, 99, CAT, 99)] * 3
    judgement = judge(question(judged))
    assert judgement.decision is Decision.INCONCLUSIVE
    assert "best version of the line" in judgement.reason
    assert judgement.metrics["anchor"]["b"] == 3


def test_a_batch_of_wrong_labels_cannot_vouch_for_itself() -> None:
    # What it brought along (12 gained) outweighs what it broke (6 lost of 40 that were held out before).
    judged = answers(CAT, both=34, b=6) + answers(CAT, c=12, settled=False)
    judgement = judge(question(judged))
    assert judgement.decision is Decision.REJECTED
    assert "held out before this claim" in judgement.reason
    # Three lost are no proof, but not let through either; two may be chance.
    judged = answers(CAT, both=37, b=3) + answers(CAT, c=12, settled=False)
    assert judge(question(judged)).decision is Decision.INCONCLUSIVE
    judged = answers(CAT, both=38, b=2) + answers(CAT, c=12, settled=False)
    assert judge(question(judged)).decision is Decision.PROMOTED


@pytest.mark.parametrize(
    ("hits", "decision"),
    [(1, Decision.INCONCLUSIVE), (2, Decision.PROMOTED)],  # 2/6 = 1/C with three classes
)
def test_a_new_class_needs_more_than_guessing(hits: int, decision: Decision) -> None:
    judged = answers(CAT, both=40) + answers(BIRD, c=hits, neither=6 - hits)
    judgement = judge(question(judged, candidate_labels=frozenset({CAT, DOG, BIRD})))
    assert judgement.decision is decision
    assert judgement.metrics["n"] == 40  # the new class is no part of n


def test_a_new_class_is_asked_nothing_while_guessing_would_get_less_than_one_right() -> None:
    three = frozenset({CAT, DOG, BIRD})
    few = answers(CAT, both=60) + answers(BIRD, neither=2)
    assert judge(question(few, candidate_labels=three)).decision is Decision.PROMOTED
    enough = answers(CAT, both=60) + answers(BIRD, neither=3)
    assert judge(question(enough, candidate_labels=three)).decision is Decision.INCONCLUSIVE


def test_only_new_classes_held_out_says_nothing_of_the_old() -> None:
    judgement = judge(question(answers(BIRD, c=5), candidate_labels=frozenset({CAT, DOG, BIRD})))
    assert judgement.decision is Decision.INCONCLUSIVE
    assert judgement.metrics["n"] == 0


def test_samples_of_a_class_that_nobody_knows_count_nowhere() -> None:
    judgement = judge(question(answers(CAT, both=30) + answers(77, neither=50)))
    assert judgement.decision is Decision.PROMOTED
    assert judgement.metrics["n"] == 30


GOOD = FoldEvidence(n=10, accuracy=0.7, majority=0.2, before=0.1)


@pytest.mark.parametrize(
    ("changes", "decision"),
    [
        ({"fold": GOOD}, Decision.INCONCLUSIVE),
        ({"fold": GOOD, "untrained": True}, Decision.PROMOTED),
        ({"fold": GOOD, "unproven": True}, Decision.PROMOTED),
        (
            {"fold": replace(GOOD, accuracy=0.2), "untrained": True},
            Decision.INCONCLUSIVE,
        ),  # no better than the majority
        ({"fold": replace(GOOD, before=0.8), "unproven": True}, Decision.INCONCLUSIVE),  # worse than live
        ({"fold": replace(GOOD, n=0), "untrained": True}, Decision.INCONCLUSIVE),
        ({"untrained": True}, Decision.INCONCLUSIVE),
    ],
)
def test_without_a_held_out_sample_only_a_first_version_may_go_by_the_fold(
    changes: dict[str, object], decision: Decision
) -> None:
    assert judge(question([], **changes)).decision is decision


def test_while_live_is_untaught_every_class_counts_and_the_recall_is_asked_of_all_together() -> None:
    labels = {"live_labels": frozenset[int](), "candidate_labels": frozenset({CAT, DOG, BIRD}), "untrained": True}
    judged = answers(CAT, c=4) + answers(DOG, c=4) + answers(BIRD, neither=1)
    judgement = judge(question(judged, **labels))
    assert judgement.decision is Decision.PROMOTED
    assert judgement.metrics["n"] == 9
    judged = answers(CAT, c=1) + answers(DOG, neither=4)
    assert judge(question(judged, **labels)).decision is Decision.INCONCLUSIVE


def test_a_candidate_without_classes_is_held_back() -> None:
    nothing = frozenset[int]()
    judgement = judge(question([], live_labels=nothing, candidate_labels=nothing, untrained=True))
    assert judgement.decision is Decision.INCONCLUSIVE


COUNT = st.integers(0, 40)


@given(b=COUNT, c=COUNT)
def test_the_test_is_a_probability_and_grows_milder_with_gains_and_harder_with_losses(b: int, c: int) -> None:
    assert 0 < p_worse(b, c) <= 1
    assert p_worse(b, c + 1) >= p_worse(b, c)
    assert p_worse(b + 1, c) <= p_worse(b, c)


SAMPLE = st.builds(
    Judged,
    label=st.integers(1, 4),
    live=st.sampled_from([1, 2, 3, None]),
    anchor=st.sampled_from([1, 2, 3, None]),
    candidate=st.sampled_from([1, 2, 3, 4, None]),
    settled=st.booleans(),
)
QUESTION = st.builds(
    Question,
    judged=st.lists(SAMPLE, max_size=120),
    live_labels=st.just(frozenset({1, 2, 3})),
    candidate_labels=st.just(frozenset({1, 2, 3, 4})),
    margin=st.floats(0, 1),
    alpha=st.floats(0.001, 0.5),
    untrained=st.booleans(),
    unproven=st.booleans(),
)


@given(QUESTION)
def test_it_never_promotes_a_loss_beyond_margin_and_chance_and_never_says_nan(q: Question) -> None:
    judgement = judge(q)
    if judgement.decision is Decision.PROMOTED:
        known = q.candidate_labels if q.untrained else q.live_labels
        old = [s for s in q.judged if s.label in known]
        new = q.candidate_labels - q.live_labels | young(q)
        for seen in (
            compare(((s.label, s.live, s.candidate) for s in old), new, len(new) / 4),
            compare(((s.label, s.anchor, s.candidate) for s in old), new, len(new) / 4),
        ):
            assert seen.taken <= len(new) / 4 * seen.n + math.sqrt(seen.n) + 1e-6
            assert seen.b - seen.c <= max(q.margin * seen.n, math.sqrt(seen.b + seen.c)) + 1e-6
        lost = judgement.metrics["b"] - judgement.metrics["c"]
        assert judgement.metrics["p"] >= q.alpha or lost <= q.margin * judgement.metrics["n"] + 1e-6
        assert judgement.metrics["p"] >= q.alpha or judgement.metrics["n"] >= 30
        assert judgement.metrics["n"] > 0
    assert "nan" not in repr(judgement).lower()


ORDER = {Decision.REJECTED: 0, Decision.INCONCLUSIVE: 1, Decision.PROMOTED: 2}


@given(QUESTION, st.data())
def test_setting_one_answer_of_the_candidate_right_never_makes_the_decision_worse(
    q: Question, data: st.DataObject
) -> None:
    if not q.judged:
        return
    position = data.draw(st.integers(0, len(q.judged) - 1))
    better = list(q.judged)
    better[position] = replace(better[position], candidate=better[position].label)
    assert ORDER[judge(replace(q, judged=better)).decision] >= ORDER[judge(q).decision]


@pytest.mark.parametrize(
    ("n", "samples", "early"),
    [(0, 99, True), (0, 100, False), (1, 5_000, True), (29, 300, True), (30, 300, False), (30, 5, False)],
)
def test_a_batch_is_not_blamed_for_a_holdout_that_is_too_small(n: int, samples: int, early: bool) -> None:
    assert too_early(n, samples) is early


def taken(label: int, by: int, count: int, *, settled: bool = True) -> list[Judged]:
    """Samples that live and the anchor had right, and that the candidate gives to another class."""
    return [Judged(label, label, label, by, settled)] * count


def test_what_a_class_takes_that_live_does_not_know_is_no_loss() -> None:
    judged = answers(CAT, both=45) + answers(DOG, both=40) + taken(DOG, BIRD, 15)
    grown = question(judged, candidate_labels=frozenset({CAT, DOG, BIRD}))
    judgement = judge(grown)
    assert judgement.decision is Decision.PROMOTED
    assert judgement.reason == "accuracy 100.0 % → 85.0 % (n=100, 15 of them taken by classes that are new)"
    assert (judgement.metrics["b"], judgement.metrics["taken"]) == (0, 15)


def test_the_same_samples_lost_to_a_class_that_live_knows_are_a_loss() -> None:
    judged = answers(CAT, both=45) + answers(DOG, both=40) + taken(DOG, CAT, 15)
    grown = question(judged, candidate_labels=frozenset({CAT, DOG, BIRD}))
    assert judge(grown).decision is Decision.REJECTED


def test_a_young_class_takes_what_is_its_own_until_its_samples_can_speak() -> None:
    three = frozenset({CAT, DOG, BIRD})
    old = answers(CAT, both=100) + answers(DOG, both=80) + taken(DOG, BIRD, 20)
    just_come = old + answers(BIRD, both=10) + answers(BIRD, c=40, settled=False)
    assert judge(question(just_come, live_labels=three, candidate_labels=three)).decision is Decision.PROMOTED
    grown_up = old + answers(BIRD, both=50)
    assert judge(question(grown_up, live_labels=three, candidate_labels=three)).decision is Decision.REJECTED


def test_new_classes_that_take_more_than_their_share_are_held_back() -> None:
    judged = answers(CAT, both=20) + answers(DOG, both=30) + taken(CAT, BIRD, 50)
    judgement = judge(question(judged, candidate_labels=frozenset({CAT, DOG, BIRD})))
    assert judgement.decision is Decision.INCONCLUSIVE  # a third of 100 and two deviations of it are 42.8
    assert "an even share for them is 33.3 %" in judgement.reason


def test_an_anchor_is_asked_only_about_classes_that_it_knows() -> None:
    three = frozenset({CAT, DOG, BIRD})
    of_anchor = [Judged(CAT, CAT, CAT, CAT)] * 60 + [Judged(BIRD, BIRD, CAT, BIRD)] * 60
    lost = [Judged(CAT, CAT, CAT, BIRD)] * 1 + [Judged(CAT, DOG, CAT, BIRD)] * 15
    q = question(of_anchor + lost, live_labels=three, candidate_labels=three, anchor_labels=frozenset({CAT, DOG}))
    judgement = judge(q)
    assert judgement.metrics["anchor"]["n"] == 76
    assert judgement.metrics["anchor"]["taken"] == 16
    assert judgement.decision is Decision.PROMOTED


@pytest.mark.parametrize(
    ("lost", "decision"), [(2, Decision.PROMOTED), (4, Decision.PROMOTED), (5, Decision.INCONCLUSIVE)]
)
def test_a_solved_head_may_lose_two_deviations_against_the_best_version_of_the_line(
    lost: int, decision: Decision
) -> None:
    moved = [Judged(CAT, DOG, CAT, DOG)] * lost  # live lost them before, so only the anchor had them right
    judged = answers(CAT, both=28) + answers(DOG, both=28) + moved
    assert judge(question(judged, alpha=0.001, solved=True)).decision is decision
    assert judge(question(judged, alpha=0.001)).decision is Decision.INCONCLUSIVE
