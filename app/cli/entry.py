"""The `perennial` command: which commands there are, and how errors are told.

Starts fast: nothing heavier than typer is imported until a command needs it.
"""

import sys

import typer

from app.cli import local, processes, remote
from app.errors import PerennialError

COMMANDS = typer.Typer(
    name="perennial",
    help="The model server that keeps learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
processes.register(COMMANDS)
local.register(COMMANDS)
remote.register(COMMANDS)


def main() -> None:
    """Run one command; what goes wrong on purpose is told in words, never as a traceback."""
    try:
        COMMANDS()
    except PerennialError as error:
        typer.secho(str(error), err=True, fg=typer.colors.RED)
        sys.exit(1)


if __name__ == "__main__":
    main()
