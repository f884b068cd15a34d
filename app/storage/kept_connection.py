"""A connection that a thread keeps, used without what lies between: for what is written dozens of times a second.

Taking a connection out of the pool, telling it to begin and to commit, and a statement's way through SQLAlchemy cost
several times what one small statement does, and while Python works on them nobody else in the process does.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError


class KeptConnection:
    """One connection of the engine's pool for each thread that asks, until something fails or it is closed."""

    def __init__(self, engine: Engine, begin: str | None) -> None:
        """`begin` is what begins a transaction, where the driver does not by itself."""
        self._engine = engine
        self._begin = begin
        self._kept: dict[int, PoolProxiedConnection] = {}  # by thread

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Give the driver's cursor, whose statements are committed in the end. Raises DBAPIError as the engine does."""
        thread = threading.get_ident()
        connection = self._kept.pop(thread, None) or self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            if self._begin:
                cursor.execute(self._begin)
            yield cursor
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
        self._kept[thread] = connection

    def close(self) -> None:
        """Give back what no thread is at work with."""
        while self._kept:
            self._kept.popitem()[1].close()
