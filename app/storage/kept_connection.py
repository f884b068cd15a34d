"""Connections that are kept, used without what lies between: for what is asked or written several times a second.

Taking a connection out of the pool, telling it to begin and to commit, and a statement's way through SQLAlchemy cost
several times what one small statement does, and while Python works on them nobody else in the process does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

from sqlalchemy import Engine, Executable, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError

KEPT = 1  # connections at most; who finds none takes one out of the pool, which has some, and gives it back


class Driven(NamedTuple):
    """A statement as the driver takes it."""

    sql: str
    values: dict[str, Any]  # those that the statement brings along
    order: list[str] | None  # of the values, for a driver that wants them by place

    @classmethod
    def of(cls, statement: Executable, engine: Engine) -> Self:
        compiled = statement.compile(engine)  # type: ignore[attr-defined]
        return cls(str(compiled), compiled.params, compiled.positiontup)


class Cursor:
    """The driver's cursor, for statements of SQLAlchemy's: made into the driver's once, rows come as the driver's."""

    def __init__(self, cursor: Any, engine: Engine, known: dict[Executable, Driven]) -> None:
        self._cursor = cursor
        self._engine = engine
        self._known = known

    def rows(self, statement: Executable, **values: Any) -> list[tuple[Any, ...]]:
        """Ask, with these values for the parameters of those names."""
        self._execute(statement, values)
        found: list[tuple[Any, ...]] = self._cursor.fetchall()
        return found

    def put(self, statement: Executable, **values: Any) -> int:
        """Write, with these values for the parameters of those names; how many rows that changed."""
        self._execute(statement, values)
        changed: int = self._cursor.rowcount
        return changed

    def _execute(self, statement: Executable, values: dict[str, Any]) -> None:
        driven = self._known.get(statement) or self._known.setdefault(statement, Driven.of(statement, self._engine))
        named = driven.values | values
        self._cursor.execute(driven.sql, named if driven.order is None else [named[name] for name in driven.order])


class KeptConnections:
    """A connection or a few of the engine's pool, each until something fails or it is closed."""

    def __init__(self, engine: Engine, begin: str | None) -> None:
        """`begin` is what begins a transaction, where the driver does not by itself."""
        self._engine = engine
        self._begin = begin
        self._kept: list[PoolProxiedConnection] = []
        self._known: dict[Executable, Driven] = {}

    @contextmanager
    def cursor(self, *, begin: bool) -> Iterator[Cursor]:
        """Give a cursor, whose statements are committed in the end; one transaction if it is to begin.

        Raises DBAPIError as the engine does.
        """
        try:
            connection = self._kept.pop()
        except IndexError:
            connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            if begin and self._begin:
                cursor.execute(self._begin)
            yield Cursor(cursor, self._engine, self._known)
            connection.commit()
            cursor.close()
        except BaseException as error:
            driver, dialect = self._engine.dialect.loaded_dbapi, self._engine.dialect
            broken = isinstance(error, driver.Error) and dialect.is_disconnect(error, connection, None)
            connection.invalidate()
            if not isinstance(error, driver.Error):
                raise
            raise DBAPIError.instance(
                None, None, error, driver.Error, connection_invalidated=broken, dialect=dialect
            ) from error
        if len(self._kept) < KEPT:
            self._kept.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Give back those that nobody is at work with."""
        while self._kept:
            self._kept.pop().close()
