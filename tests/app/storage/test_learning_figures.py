from datetime import timedelta

import pytest
from sqlalchemy import update

from app.storage import learning_figures
from app.storage.learning_figures import Done, LearningFigures
from app.storage.states import UpdateState, Verdict
from app.storage.tables import Update
from tests.app.storage.stores import Stores, sample


def test_updates_are_counted_by_how_they_ended(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    model = stores.create(trigger={"samples": 1}).model
    figures = LearningFigures(stores.database)
    assert figures.updates() == {}
    for round_number, settled in enumerate((timedelta(minutes=1), timedelta(0), timedelta(minutes=1))):
        monkeypatch.setattr(learning_figures, "SETTLED", settled)  # counted for good, or counted again each time
        for number, verdict in enumerate((Verdict.PROMOTED, Verdict.REJECTED)):
            stores.post(model, sample(10 * round_number + number))
            stores.learn(model, verdict)

        found = figures.updates()

        assert found == figures.updates() == LearningFigures(stores.database).updates()
        assert found == {
            Done("digits", "learn", "slow", "committed", "promoted"): round_number + 1,
            Done("digits", "learn", "slow", "committed", "rejected"): round_number + 1,
        }


def test_an_update_that_ends_after_a_later_one_is_counted_too(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_figures, "SETTLED", timedelta(0))
    model = stores.create(trigger={"samples": 1}).model
    figures = LearningFigures(stores.database)
    stores.post(model, sample(1))
    claim = stores.claim(model)

    assert figures.updates() == {}
    stores.queue.commit(claim, stores.outcome(claim))

    assert list(figures.updates().values()) == [1]


def test_an_update_below_those_that_are_counted_counts_none_of_them_twice(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_figures, "SETTLED", timedelta(0))
    model = stores.create(trigger={"samples": 1}).model
    figures = LearningFigures(stores.database)
    for number in range(2):
        stores.post(model, sample(number))
        stores.learn(model)
    assert sum(figures.updates().values()) == 2

    with stores.database.sessions() as session, session.begin():  # as one whose transaction took longer than any should
        session.execute(update(Update).where(Update.id == 1).values(state=UpdateState.RUNNING))

    assert sum(figures.updates().values()) == 2


def test_the_ages_of_a_versions_labels_are_told(stores: Stores) -> None:
    live = stores.create(trigger={"samples": 1})
    figures = LearningFigures(stores.database)
    stores.post(live.model, sample(1), sample(2))

    ages = figures.label_ages(stores.learn(live.model).id)

    assert ages is not None
    assert 0 <= ages.newest <= ages.oldest < 60
    assert figures.label_ages(live.version.id) is None
