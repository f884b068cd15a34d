"""The figures of continual learning against tables worked out by hand."""

import json
from fractions import Fraction

import pytest

from app.continual_metrics import (
    Prequential,
    accuracy,
    average_anytime_accuracy,
    average_incremental_accuracy,
    backward_transfer,
    first_measured,
    forgetting,
    forward_transfer,
    min_accuracy,
    worst_case_accuracy,
)

# Three steps, three test sets, the upper triangle measured too.
THREE = [
    [0.9, 0.3, 0.1],
    [0.6, 0.8, 0.2],
    [0.7, 0.5, 1.0],
]
UNTRAINED = [0.1, 0.2, 0.1]


def test_accuracy_is_the_mean_of_the_last_row() -> None:
    assert accuracy(THREE) == pytest.approx((0.7 + 0.5 + 1.0) / 3)


def test_average_incremental_accuracy_takes_of_each_row_what_was_taught_by_then() -> None:
    by_hand = (0.9 + (0.6 + 0.8) / 2 + (0.7 + 0.5 + 1.0) / 3) / 3

    assert average_incremental_accuracy(THREE) == pytest.approx(by_hand)


def test_backward_transfer_compares_the_end_with_the_moment_of_learning() -> None:
    assert backward_transfer(THREE) == pytest.approx(((0.7 - 0.9) + (0.5 - 0.8)) / 2)


def test_forward_transfer_compares_the_row_before_learning_with_an_untrained_network() -> None:
    assert forward_transfer(THREE, UNTRAINED) == pytest.approx(((0.3 - 0.2) + (0.2 - 0.1)) / 2)


def test_forgetting_is_the_best_before_the_end_less_the_end() -> None:
    assert forgetting(THREE) == pytest.approx(((0.9 - 0.7) + (0.8 - 0.5)) / 2)


def test_forgetting_takes_the_best_value_where_backward_transfer_takes_the_first() -> None:
    rising_then_falling = [[0.5, 0.0], [0.9, 0.0], [0.6, 0.8]]

    assert forgetting(rising_then_falling, learned=[0, 2]) == pytest.approx(0.9 - 0.6)
    assert backward_transfer(rising_then_falling, learned=[0, 2]) == pytest.approx(0.6 - 0.5)


def test_forgetting_is_below_zero_when_everything_got_better() -> None:
    assert forgetting([[0.5, 0.0], [0.7, 0.9]]) == pytest.approx(0.5 - 0.7)


def test_anytime_accuracy_averages_over_evaluations_within_steps_too() -> None:
    evaluations = [[0.4, 0.0], [0.8, 0.0], [0.6, 0.2], [0.7, 0.9]]

    assert average_anytime_accuracy(evaluations, seen=[1, 1, 2, 2]) == pytest.approx((0.4 + 0.8 + 0.4 + 0.8) / 4)
    assert average_anytime_accuracy(evaluations, seen=[0, 1, 2, 2]) == pytest.approx((0.8 + 0.4 + 0.8) / 3)


def test_worst_case_accuracy_finds_the_dip_that_the_last_row_hides() -> None:
    # The first set is learned after row 1, falls to 0.2 in row 2 and recovers; the second is learned last.
    evaluations = [[0.5, 0.0], [0.9, 0.1], [0.2, 0.5], [0.8, 0.7]]
    learned = [1, 3]

    assert min_accuracy(evaluations, learned) == pytest.approx(0.2)
    assert worst_case_accuracy(evaluations, learned) == pytest.approx(0.5 * 0.7 + 0.5 * 0.2)


def test_worst_case_accuracy_of_three_steps_by_its_formula() -> None:
    least = (min(0.6, 0.7) + 0.5) / 2

    assert min_accuracy(THREE) == pytest.approx(least)
    assert worst_case_accuracy(THREE) == pytest.approx(1 / 3 * 1.0 + 2 / 3 * least)


def test_what_was_not_measured_is_passed_over() -> None:
    gaps = [[1.0, None], [None, 0.5], [0.6, None]]

    assert accuracy(gaps) == pytest.approx(0.6)
    assert forgetting(gaps, learned=[0, 1]) == pytest.approx(1.0 - 0.6)
    assert min_accuracy(gaps, learned=[0, 1]) == pytest.approx(0.6)
    assert average_incremental_accuracy(gaps, learned=[0, 1]) == pytest.approx((1.0 + 0.5 + 0.6) / 3)
    assert first_measured(gaps) == [0, 1]
    assert first_measured([[None], [None]]) == [None]


@pytest.mark.parametrize(
    "figure", [accuracy, average_incremental_accuracy, backward_transfer, forgetting, min_accuracy, worst_case_accuracy]
)
def test_nothing_measured_gives_no_figure(figure: object) -> None:
    assert callable(figure)
    assert figure([]) is None


def test_a_single_step_has_nothing_to_forget_and_nothing_to_transfer() -> None:
    assert forgetting([[0.9]]) is None
    assert backward_transfer([[0.9]]) is None
    assert forward_transfer([[0.9]], [0.1]) is None
    assert min_accuracy([[0.9]]) is None
    assert worst_case_accuracy([[0.9]]) == 0.9
    assert average_incremental_accuracy([[0.9]]) == 0.9


def test_a_table_whose_rows_differ_or_whose_steps_are_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="one entry for each of the 2 columns"):
        forgetting([[0.1, 0.2], [0.1]])
    with pytest.raises(ValueError, match="counts the 1 rows from 0"):
        forgetting([[0.1, 0.2]])


def test_prequential_accuracy_over_the_whole_a_window_and_fading() -> None:
    state = Prequential(window_size=3, fading_factor=0.5)
    for right in (True, False, True, True):
        state = state.seen(right)

    assert state.whole == 3 / 4
    assert state.window == 2 / 3
    weights = [Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(1)]
    assert state.fading == pytest.approx(float((weights[0] + weights[2] + weights[3]) / sum(weights)))
    assert state.figures() == {"whole": 0.75, "window": 2 / 3, "fading": state.fading, "n": 4}


def test_a_window_that_is_not_full_yet_counts_what_came() -> None:
    state = Prequential(window_size=10).seen(True).seen(False)

    assert state.window == 0.5


def test_before_the_first_sample_there_is_no_prequential_accuracy() -> None:
    assert Prequential().figures() == {"whole": None, "window": None, "fading": None, "n": 0}


def test_seeing_a_sample_leaves_the_earlier_state_as_it_was() -> None:
    before = Prequential().seen(True)

    before.seen(False)

    assert before == Prequential().seen(True)


def test_a_prequential_state_goes_on_where_it_was_saved() -> None:
    answers = [step % 3 == 0 for step in range(50)]
    through = saved = Prequential(window_size=20)
    for right in answers:
        through = through.seen(right)
        saved = Prequential.from_json(json.loads(json.dumps(saved.seen(right).to_json())))

    assert saved == through
    assert saved.newest < 1 << 20  # the window is all that is kept of them


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Prequential(window_size=0)
