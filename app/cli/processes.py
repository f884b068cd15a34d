"""The commands that start processes: up, serve, work, demo.

Each imports what it needs when it is called: torch and SQLAlchemy take seconds that `perennial predict` need not wait.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from app.cli.configuration import environment, read_settings, require_safe_address
from app.serving.siblings import Place
from app.settings import Settings

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one.", show_default="8000")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of everything you own.", show_default="perennial-data")]

Processes = Annotated[
    int | None, typer.Option(min=1, max=64, help="Serving processes, which share the port.", show_default="1")
]


def register(commands: typer.Typer) -> None:
    """Add this module's commands."""
    commands.command()(up)
    commands.command()(serve)
    commands.command()(work)
    commands.command()(demo)


def up(host: Host = None, port: Port = None, data_dir: DataDir = None, processes: Processes = None) -> None:
    """Start a server and a worker, and keep them running."""
    from app.cli import running  # noqa: PLC0415  SQLAlchemy

    settings = _settings_of_a_server(host, port, data_dir, processes)
    running.up(settings)


def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    processes: Processes = None,
    socket_fd: Annotated[int | None, typer.Option(hidden=True, help="A listening socket it inherits.")] = None,
    place: Annotated[str | None, typer.Option(hidden=True, help="Its place among those who share it.")] = None,
) -> None:
    """Start a server only; the database must be up to date."""
    from app.cli import running  # noqa: PLC0415  SQLAlchemy

    settings = _settings_of_a_server(host, port, data_dir, processes)
    raise typer.Exit(running.serve(settings, socket_fd, None if place is None else Place.read(place)))


def work(data_dir: DataDir = None) -> None:
    """Start a worker only; the database must be up to date."""
    settings = read_settings(data_dir=data_dir)
    os.execve(  # noqa: S606  becomes the worker: signals and exit code are its own
        sys.executable, [sys.executable, "-m", "worker"], {**os.environ, **environment(settings)}
    )


def demo(
    dataset: Annotated[str, typer.Option(help="`digits` (comes with it) or `fashion-mnist`.")] = "digits",
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the data set's own files lie (fashion_mnist.tar, or the four idx files).")
    ] = None,
    service_dir: Annotated[
        Path | None, typer.Option(help="Folder of the service the demo starts.", show_default="perennial-data/demo-…")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the service; 0 picks a free one.")] = 0,
    keep: Annotated[bool, typer.Option(help="Leave the service running at the end, to look around in it.")] = False,
) -> None:
    """Watch a model learn from labels, refuse a poisoned batch and roll back, over HTTP."""
    from app.cli.demo import demonstration  # noqa: PLC0415  scikit-learn

    raise typer.Exit(demonstration.run(dataset, data_dir, service_dir, port=port, keep=keep))


def _settings_of_a_server(host: str | None, port: int | None, data_dir: Path | None, processes: int | None) -> Settings:
    settings = read_settings(host=host, port=port, data_dir=data_dir, processes=processes)
    require_safe_address(settings)
    return settings
