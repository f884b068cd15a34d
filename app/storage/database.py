"""One database, SQLite or PostgreSQL, and what a transaction is.

The stores of this folder are built with a `Database`; a method marked `@writes` or `@reads` is one transaction,
retried whole when the database was busy or its connection broke. Nobody else opens a session.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import stamina
from sqlalchemy import ColumnElement, Connection, Engine, create_engine, event, literal_column, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.sql.functions import FunctionElement

from app.errors import InvalidSetting
from app.log import get_logger
from app.storage.kept_connection import Cursor, KeptConnections
from app.storage.tables import Moment

log = get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# Write-ahead logging loses commits in releases before this one when two connections meet at a checkpoint.
SAFE_WAL = (3, 51, 3)


class DatabaseNow(FunctionElement[datetime]):
    """The database's clock in whole milliseconds, moving within a transaction."""

    inherit_cache = True
    type = Moment()


@compiles(DatabaseNow, "sqlite")
def _sqlite_now(element: DatabaseNow, compiler: Any, **kwargs: Any) -> str:
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


@compiles(DatabaseNow, "postgresql")
def _postgresql_now(element: DatabaseNow, compiler: Any, **kwargs: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"


def now(session: Session) -> datetime:
    """The database's time: leases and back-off are measured by no other clock."""
    moment: datetime = session.execute(select(DatabaseNow())).scalar_one()
    return moment


def literal(state: StrEnum) -> ColumnElement[str]:
    """A state spelled out in the SQL: with a bound parameter PostgreSQL may plan past a partial index."""
    return literal_column(f"'{state.value}'")


_SQLITE_BEGIN = "BEGIN IMMEDIATE"  # a writer's


class Database:
    """An engine set up so that a commit is durable and a writer never upgrades a read lock."""

    def __init__(self, url: str) -> None:
        try:
            address = make_url(url)
        except ArgumentError as error:
            raise InvalidSetting(
                "PERENNIAL_DATABASE_URL is no address; expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME."
            ) from error
        if address.get_backend_name() == "sqlite":
            self.engine = _sqlite(url)
        elif address.get_backend_name() == "postgresql":
            self.engine = _postgresql(url)
        else:
            raise InvalidSetting(
                f"PERENNIAL_DATABASE_URL names {address.get_backend_name()!r}; "
                "sqlite:///FILE and postgresql://… are supported."
            )
        self.sessions = sessionmaker(self.engine, expire_on_commit=False)
        self.kept = KeptConnections(self.engine, _SQLITE_BEGIN if self.dialect == "sqlite" else None)

    @property
    def dialect(self) -> str:
        return self.engine.dialect.name

    def close(self) -> None:
        self.kept.close()
        self.engine.dispose()


def _sqlite(url: str) -> Engine:
    try:
        from pysqlite3 import dbapi2 as module  # noqa: PLC0415  a newer SQLite than Python's own, where there is a wheel
    except ImportError:
        import sqlite3 as module  # noqa: PLC0415
    file = make_url(url).database
    if not file or file == ":memory:":
        raise InvalidSetting("PERENNIAL_DATABASE_URL must name a file: two processes share the database.")
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, module=module, pool_size=8, max_overflow=16)
    journal = "WAL" if module.sqlite_version_info >= SAFE_WAL else "DELETE"
    if journal == "DELETE":
        log.warning("old sqlite, slower journal", sqlite=module.sqlite_version, wanted=".".join(map(str, SAFE_WAL)))

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        for pragma in (
            "busy_timeout=30000",
            f"journal_mode={journal}",
            "synchronous=FULL",  # an acknowledged sample survives a power cut
            "foreign_keys=ON",
            "wal_autocheckpoint=250",  # pages; the usual 1,000 keep a core for 3 ms, from whoever wakes up there
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes the lock at once: upgrading a read lock fails without waiting for the busy timeout.
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else _SQLITE_BEGIN)

    return engine


def _postgresql(url: str) -> Engine:
    limits = "-c lock_timeout=5000 -c statement_timeout=60000 -c idle_in_transaction_session_timeout=60000"
    return create_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=16, connect_args={"options": limits})


def _worth_another_try(error: Exception) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError):
        return False
    words = str(error.orig)
    return "locked" in words or "busy" in words or "sqlite" not in type(error.orig).__module__


class Store(Protocol):
    _database: Database


S = TypeVar("S", bound=Store)


def writes(method: Callable[Concatenate[S, Session, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make the method one transaction that may write; called without the session."""

    @contextmanager
    def opened(database: Database) -> Iterator[Session]:
        with database.sessions() as session, session.begin():
            yield session

    return _retried(method, opened)


def reads(method: Callable[Concatenate[S, Session, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make the method one transaction that only reads; called without the session."""

    @contextmanager
    def opened(database: Database) -> Iterator[Session]:
        with database.sessions() as session:
            session.connection(execution_options={"read_only": True})
            yield session

    return _retried(method, opened)


def looks(method: Callable[Concatenate[S, Cursor, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make the method one that only asks, one statement, with the driver's cursor: for what is asked several times a
    second, beside answers that would wait for Python meanwhile."""
    return _retried(method, lambda database: database.kept.cursor(begin=False))


def puts(method: Callable[Concatenate[S, Cursor, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make the method one transaction that may write, with the driver's cursor: as `looks`, for what is written."""
    return _retried(method, lambda database: database.kept.cursor(begin=True))


def _retried(
    method: Callable[Concatenate[S, T, P], R], opened: Callable[[Database], AbstractContextManager[T]]
) -> Callable[Concatenate[S, P], R]:
    """Call the method with what is opened for it, again while the database is busy or its connection broke."""

    @functools.wraps(method)
    def transaction(store: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        for attempt in stamina.retry_context(on=_worth_another_try, attempts=8, timeout=60):
            with attempt, opened(store._database) as handle:  # noqa: SLF001  every store has one
                return method(store, handle, *args, **kwargs)
        raise AssertionError("unreachable: the last attempt raises")

    return transaction
