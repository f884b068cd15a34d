"""An installation on each database, with stores to look inside it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.storage.stores import Stores, open_stores
from tests.processes.processes import Installation


@pytest.fixture
def installation(url: str, tmp_path: Path) -> Installation:
    return Installation(url, tmp_path)


@pytest.fixture
def stores(url: str, tmp_path: Path) -> Iterator[Stores]:
    stores = open_stores(url, tmp_path)
    yield stores
    stores.database.close()


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """Let what is started here hear Ctrl-C: a shell has jobs in its background ignore it, and their children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
