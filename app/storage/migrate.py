"""Bring the database's schema up to this release, from a checkout or from an installed wheel alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import OperationalError

from app.errors import Unavailable
from app.storage.database import Database


def upgrade(database: Database) -> None:
    """Run the migrations that are missing; safe to call at every start."""
    with _answering(database):
        command.upgrade(_config(database), "head")


def downgrade(database: Database, revision: str) -> None:
    """Go back to a revision, `base` for an empty database. Data of later tables is lost."""
    command.downgrade(_config(database), revision)


def require_current(database: Database) -> None:
    """Refuse to run on another schema than this release's."""
    head = ScriptDirectory.from_config(_config(database)).get_current_head()
    with _answering(database), database.engine.connect().execution_options(read_only=True) as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found != head:
        raise Unavailable(
            f"The database is at schema {found or 'none'}, this release needs {head}: run `perennial db upgrade`."
        )


@contextmanager
def _answering(database: Database) -> Iterator[None]:
    """Say in words that the database cannot be reached."""
    try:
        yield
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise Unavailable(
            f"The database at {database.engine.url.render_as_string(hide_password=True)} does not answer: {reason}. "
            "See whether it runs, and whether PERENNIAL_DATABASE_URL is right."
        ) from error


def _config(database: Database) -> Config:
    # A wheel carries the migrations beside this module; a checkout has them at its top.
    inside = Path(str(files("app.storage"))) / "migrations"
    scripts = inside if inside.is_dir() else Path(__file__).resolve().parents[2] / "alembic"
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.attributes["engine"] = database.engine
    return config
