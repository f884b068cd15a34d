"""Every storage test runs on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.storage.database import Database
from tests.app.storage.stores import Stores, open_stores


@pytest.fixture
def stores(url: str, tmp_path: Path) -> Iterator[Stores]:
    stores = open_stores(url, tmp_path)
    yield stores
    stores.database.close()


@pytest.fixture
def database(stores: Stores) -> Database:
    return stores.database
