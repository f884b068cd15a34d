"""The commands that work on the data folder itself: db, keys, weights, check. No server need run.

Each imports what it needs when it is called: torch and SQLAlchemy take seconds that `perennial predict` need not wait.
"""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.configuration import make_data_dir, read_settings
from app.cli.printing import say, table
from app.cli.processes import DataDir

Scope = Annotated[str, typer.Option(help="`predict`, `label` (and predict) or `admin` (everything).")]

DATABASE = typer.Typer(help="The database.", no_args_is_help=True)
KEYS = typer.Typer(help="API keys.", no_args_is_help=True)
WEIGHTS = typer.Typer(help="Base weights: pretrained files that models may start from.", no_args_is_help=True)


def register(commands: typer.Typer) -> None:
    """Add this module's commands."""
    commands.add_typer(DATABASE, name="db")
    commands.add_typer(KEYS, name="keys")
    commands.add_typer(WEIGHTS, name="weights")
    commands.command()(check)


@DATABASE.command("upgrade")
def upgrade_database(data_dir: DataDir = None) -> None:
    """Bring the database to this program's schema; safe to run at any time."""
    from app.storage.database import Database  # noqa: PLC0415  SQLAlchemy
    from app.storage.migrate import upgrade  # noqa: PLC0415

    settings = read_settings(data_dir=data_dir)
    make_data_dir(settings)
    database = Database(settings.database_address)
    try:
        upgrade(database)
    finally:
        database.close()
    say("The database is up to date.")


@DATABASE.command("check")
def check_database(data_dir: DataDir = None) -> None:
    """Say whether the database answers and is at this program's schema."""
    from app.cli.stores import key_ring  # noqa: PLC0415  SQLAlchemy

    with key_ring(read_settings(data_dir=data_dir)):
        say("The database answers and is up to date.")


@KEYS.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose key it is: stands in receipts and in the audit log.")],
    scope: Scope = "predict",
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once."""
    from app.cli.stores import key_ring  # noqa: PLC0415  SQLAlchemy

    if scope not in ("predict", "label", "admin"):
        raise typer.BadParameter(f"expected predict, label or admin, not {scope!r}", param_hint="--scope")
    with key_ring(read_settings(data_dir=data_dir)) as ring:
        key, secret = ring.create(name, scope)
    say(f"Key {key.id} ({name}, scope {scope}), shown only this once:")
    say(secret)


@KEYS.command("list")
def list_keys(data_dir: DataDir = None) -> None:
    """Show the keys; never their secrets."""
    from app.cli.stores import key_ring  # noqa: PLC0415  SQLAlchemy

    with key_ring(read_settings(data_dir=data_dir)) as ring:
        keys = ring.list()
    table(
        ["id", "name", "scope", "made", "revoked"],
        [(key.id, key.name, key.scope, key.created_at, key.revoked_at) for key in keys],
    )


@KEYS.command("revoke")
def revoke_key(key_id: Annotated[int, typer.Argument(metavar="ID")], data_dir: DataDir = None) -> None:
    """Refuse a key from now on."""
    from app.cli.stores import key_ring  # noqa: PLC0415  SQLAlchemy

    with key_ring(read_settings(data_dir=data_dir)) as ring:
        ring.revoke(key_id)
    say(f"Key {key_id} is revoked.")


@WEIGHTS.command("add")
def add_weights(
    file: Annotated[Path, typer.Argument(help="A `.safetensors`, `.pth`, `.pt` or `.th` file of a state dict.")],
    data_dir: DataDir = None,
) -> None:
    """Bring a pretrained weights file in, and print the name by which models ask for it."""
    from app.cli.weight_files import add  # noqa: PLC0415  torch

    digest = add(file, read_settings(data_dir=data_dir))
    say(digest)
    say("When a model is created, ask for it so:", quiet=True)
    say(f'"network": {{"architecture": "…", "weights": "{digest}"}}', quiet=True)


def check(
    builder: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="What builds your network.")],
    input_form: Annotated[
        str, typer.Option("--input", help="`features:64`, or `image:32x3` (pixels a side x channels).")
    ],
) -> None:
    """Try your own network as the product will use it, and say what fits and what does not."""
    from app.cli.check import check_builder  # noqa: PLC0415  torch

    raise typer.Exit(check_builder(builder, input_form))
