from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.storage.database import Database
from tests.app.storage.stores import Stores


def table(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE things (name TEXT PRIMARY KEY)"))


def add(database: Database, names: Iterable[str]) -> None:
    with database.kept.transaction() as cursor:
        for name in names:
            cursor.execute(f"INSERT INTO things VALUES ('{name}')")


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
    with database.kept.transaction() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        backend = cursor.fetchone()[0]
    with database.engine.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:backend, 5000)"), {"backend": backend})

    with pytest.raises(DBAPIError) as raised:
        add(database, ["a"])
    assert raised.value.connection_invalidated
    add(database, ["b"])

    assert names(database) == ["b"]


def test_each_thread_has_its_own(stores: Stores) -> None:
    database = stores.database
    table(database)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda number: add(database, [f"{number:02}"]), range(30)))

    assert names(database) == [f"{number:02}" for number in range(30)]
