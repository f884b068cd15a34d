"""What every memory of the catalog must keep to, over both databases: a new one is tested by its row."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from app.ingredients import Memory
from app.storage.database import Database
from app.storage.line import MEMORIES, LineReader, Stored
from app.storage.settling import Fate
from app.storage.tables import Model
from tests.app.storage.stores import Stores, open_stores, sample


@pytest.fixture
def stores(url: str, tmp_path: Path) -> Iterator[Stores]:
    stores = open_stores(url, tmp_path)
    yield stores
    stores.database.close()


@pytest.fixture(params=sorted(MEMORIES))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def remembered(
    stores: Stores, kind: str, model: Model, capacity: int, exclude: frozenset[str] = frozenset()
) -> list[Stored]:
    return MEMORIES[kind](stores.line, model, capacity, exclude)


def taught(stores: Stores) -> Model:
    model = stores.create().model
    stores.post(model, *[sample(n, "a") for n in range(60)], *[sample(100 + n, "b") for n in range(20)])
    stores.learn(model)
    return model


def test_a_recipe_names_each_memory_of_the_catalog() -> None:
    assert set(get_args(Memory.model_fields["kind"].annotation)) == set(MEMORIES)


def test_the_capacity_is_filled_and_never_passed(stores: Stores, kind: str) -> None:
    model = taught(stores)
    assert [len(remembered(stores, kind, model, capacity)) for capacity in (0, 1, 10, 80, 500)] == [0, 1, 10, 80, 80]


def test_the_same_samples_are_remembered_every_time_and_a_larger_memory_holds_the_smaller(
    stores: Stores, kind: str
) -> None:
    model = taught(stores)
    small = {one.sample_id for one in remembered(stores, kind, model, 10)}
    assert small == {one.sample_id for one in remembered(stores, kind, model, 10)}
    assert small <= {one.sample_id for one in remembered(stores, kind, model, 30)}


def test_a_process_that_starts_later_remembers_the_same_samples(stores: Stores, kind: str) -> None:
    model = taught(stores)
    before = remembered(stores, kind, model, 20)
    later = Database(stores.database.engine.url.render_as_string(hide_password=False))
    found = MEMORIES[kind](LineReader(later), model, 20, frozenset())
    later.close()
    assert [one.sample_id for one in found] == [one.sample_id for one in before]
    assert len(found) == 20


def test_balance_is_what_the_kind_says(stores: Stores, kind: str) -> None:
    counts = Counter(one.label_id for one in remembered(stores, kind, taught(stores), 20))
    if kind == "class_balanced":
        assert counts == {1: 10, 2: 10}
    else:
        assert counts[1] > counts[2] > 0, "three quarters of what was learned is of the first class"


def test_duplicates_count_once_and_what_is_excluded_is_left_out(stores: Stores, kind: str) -> None:
    model = taught(stores)
    stores.post(model, *[sample(n, "a") for n in range(30)])
    stores.learn(model)
    everything = remembered(stores, kind, model, 500)
    left = hashlib.sha256(b"content 3").hexdigest()

    assert len(everything) == len({one.content_digest for one in everything}) == 80
    assert left not in {one.content_digest for one in remembered(stores, kind, model, 500, frozenset({left}))}


def test_withdrawn_and_rolled_back_samples_are_forgotten_at_once(stores: Stores, kind: str) -> None:
    model = taught(stores)
    (later,) = stores.post(model, sample(999, "b"))
    stores.learn(model)
    first = next(one.sample_id for one in remembered(stores, kind, model, 500) if one.sample_id != later)
    stores.intake.withdraw(model, first, "tester")
    held = {one.sample_id for one in remembered(stores, kind, model, 500)}
    assert first not in held
    assert later in held

    stores.steering.roll_back(model.name, to=None, samples=Fate.QUARANTINE, pin=False, reason="", actor="tester")

    assert later not in {one.sample_id for one in remembered(stores, kind, model, 500)}
