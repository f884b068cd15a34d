"""The `perennial` command: which commands there are, and how errors are told.

Starts fast: nothing heavier than typer is imported until a command needs it.
"""

import sys
from importlib import metadata
from typing import Annotated

import typer

from app.cli import local, processes, remote
from app.cli.importing.command import import_set
from app.cli.printing import say
from app.errors import PerennialError
from app.openmp import begin_with_one_thread

COMMANDS = typer.Typer(
    name="perennial",
    help="The model server that keeps learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"perennial {metadata.version('perennial')}")
        raise typer.Exit


@COMMANDS.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """The model server that keeps learning."""


processes.register(COMMANDS)
local.register(COMMANDS)
remote.register(COMMANDS)
COMMANDS.command("import")(import_set)


def main() -> None:
    """Run one command; what goes wrong on purpose is told in words, never as a traceback."""
    begin_with_one_thread()
    try:
        COMMANDS()
    except PerennialError as error:
        typer.secho(str(error), err=True, fg=typer.colors.RED)
        sys.exit(1)


if __name__ == "__main__":
    main()
