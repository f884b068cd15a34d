from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import bindparam, column, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.storage.database import Database
from app.storage.kept_connection import KEPT
from tests.app.storage.stores import Stores

ADD = text("INSERT INTO things VALUES (:name)")
NAMES = select(column("name")).select_from(text("things")).where(column("name") >= bindparam("least")).order_by("name")


def table(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE things (name TEXT PRIMARY KEY)"))


def add(database: Database, names: Iterable[str]) -> None:
    with database.kept.cursor(begin=True) as cursor:
        for name in names:
            assert cursor.put(ADD, name=name) == 1


def names(database: Database) -> list[str]:
    with database.engine.connect().execution_options(read_only=True) as connection:
        return sorted(connection.execute(text("SELECT name FROM things")).scalars())


def test_what_was_done_is_committed_and_the_connection_kept(stores: Stores) -> None:
    database = stores.database
    table(database)
    before = database.engine.pool.checkedout()  # type: ignore[attr-defined]
    add(database, ["a"])
    add(database, ["b"])

    assert names(database) == ["a", "b"]
    assert database.engine.pool.checkedout() == before + 1  # type: ignore[attr-defined]
    database.kept.close()
    assert database.engine.pool.checkedout() == before  # type: ignore[attr-defined]


def test_what_fails_is_undone_and_raised_as_the_engine_does_and_the_next_one_works(stores: Stores) -> None:
    database = stores.database
    table(database)
    with pytest.raises(IntegrityError):
        add(database, ["a", "a"])
    with pytest.raises(ZeroDivisionError):
        add(database, (f"{1 // number}" for number in (1, 0)))
    add(database, ["c"])

    assert names(database) == ["c"]


def test_a_connection_that_broke_is_told_as_such_and_replaced(stores: Stores) -> None:
    database = stores.database
    if database.dialect != "postgresql":
        pytest.skip("SQLite has no connection that could break")
    table(database)
    with database.kept.cursor(begin=False) as cursor:
        ((backend,),) = cursor.rows(text("SELECT pg_backend_pid()"))
    with database.engine.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:backend, 5000)"), {"backend": backend})

    with pytest.raises(DBAPIError) as raised:
        add(database, ["a"])
    assert raised.value.connection_invalidated
    add(database, ["b"])

    assert names(database) == ["b"]


def test_what_was_written_elsewhere_is_seen_at_the_next_look(stores: Stores) -> None:
    database = stores.database
    table(database)

    def seen(least: str) -> list[tuple[str]]:
        with database.kept.cursor(begin=False) as cursor:
            return cursor.rows(NAMES, least=least)

    assert seen("") == []
    for name in ("a", "b"):
        with database.engine.begin() as connection:
            connection.execute(ADD, {"name": name})
        assert seen(name) == [(name,)]
    assert seen("") == [("a",), ("b",)]


def test_threads_do_not_meet_and_no_more_are_kept_than_it_says(stores: Stores) -> None:
    database = stores.database
    table(database)
    before = database.engine.pool.checkedout()  # type: ignore[attr-defined]

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(lambda number: add(database, [f"{number:02}"]), range(60)))

    assert names(database) == [f"{number:02}" for number in range(60)]
    assert database.engine.pool.checkedout() <= before + KEPT  # type: ignore[attr-defined]
