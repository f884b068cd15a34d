"""Every storage test runs on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.storage.database import Database
from app.storage.intake import Intake
from app.storage.line import LineReader
from app.storage.migrate import upgrade
from app.storage.queue import SampleQueue
from app.storage.receipts import Receipts
from app.storage.registry import ModelRegistry
from app.storage.weights import WeightStore
from tests.app.storage.stores import Stores


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    upgrade(database)
    yield database
    database.close()


@pytest.fixture
def stores(database: Database, tmp_path: Path) -> Stores:
    return Stores(
        database,
        ModelRegistry(database),
        Intake(database),
        Receipts(database),
        SampleQueue(database),
        LineReader(database),
        WeightStore(tmp_path / "weights"),
    )
