"""The stores that commands of the data folder open and close again."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.cli.configuration import make_data_dir
from app.settings import Settings
from app.storage.database import Database
from app.storage.keys import KeyRing
from app.storage.migrate import require_current


@contextmanager
def key_ring(settings: Settings) -> Iterator[KeyRing]:
    """Open the keys of the data folder. Raises Unavailable where the database is not up to date."""
    make_data_dir(settings)
    database = Database(settings.database_address)
    try:
        require_current(database)
        yield KeyRing(database)
    finally:
        database.close()
