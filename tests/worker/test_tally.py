from hypothesis import given
from hypothesis import strategies as st

from worker.tally import Change, Tally

PLACES = st.tuples(st.sampled_from(["x", "y", "z"]), st.integers(1, 3))
EDITS = st.dictionaries(st.sampled_from(["1", "2", "3", "4"]), st.none() | PLACES)


def test_a_content_posted_twice_counts_once_with_its_newest_label() -> None:
    tally = Tally.of([("1", ("x", 1)), ("2", ("x", 2))])

    changes, _ = tally.edit({"1": None})

    assert (len(tally), tally.label("x"), changes) == (1, 2, [])
    assert tally.edit({"2": None})[0] == [Change("x", 2, None)]
    assert tally.label("x") is None


@given(EDITS, EDITS)
def test_an_edit_is_undone_exactly(
    first: dict[str, tuple[str, int] | None], second: dict[str, tuple[str, int] | None]
) -> None:
    tally = Tally()
    tally.edit(first)
    places, contents = tally.places(), tally.contents()

    changes, undo = tally.edit(second)
    back, _ = tally.edit(undo)

    assert (tally.places(), tally.contents()) == (places, contents)
    assert [(one.content_digest, one.after, one.before) for one in back] == [
        (one.content_digest, one.before, one.after) for one in changes
    ]


@given(EDITS, EDITS)
def test_the_difference_leads_to_what_is_wanted(
    first: dict[str, tuple[str, int] | None], second: dict[str, tuple[str, int] | None]
) -> None:
    tally = Tally()
    tally.edit(first)
    wanted = {sample_id: place for sample_id, place in second.items() if place is not None}

    tally.edit(tally.difference(wanted))

    assert tally.places() == wanted
