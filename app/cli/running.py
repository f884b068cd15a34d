"""What `perennial up` and `perennial serve` do: the composition of a supervised pair, and of one server.

Called by the commands of `processes`. Imports SQLAlchemy at once; torch only in a server's own process.
"""

import os
import socket
import sys
from pathlib import Path

import httpx

from app.cli import banner
from app.cli.configuration import environment, make_data_dir
from app.cli.supervisor import Child, Supervisor
from app.log import configure
from app.serving.listener import listen
from app.settings import Settings
from app.storage.database import Database
from app.storage.keys import KeyRing
from app.storage.migrate import upgrade

WORKER_STARTS = 2


def up(settings: Settings) -> None:
    """Migrate, make the first admin key, start server and worker, and keep both running until a signal."""
    configure(settings.log_level, settings.log_format)
    listener = listen(settings.host, settings.port)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    made = prepare(settings)
    children = {**os.environ, **environment(settings), "PERENNIAL_ADMIN_KEY": ""}  # only digests from here on
    server = Child(
        "server",
        [sys.executable, "-m", "app.cli.entry", "serve", "--socket-fd", str(listener.fileno())],
        children,
        answers=lambda: answers(settings),
        when_up=lambda: banner.show(settings, made),
        files=(listener.fileno(),),
    )
    worker = Child("worker", [sys.executable, "-m", "worker"], children, starts=WORKER_STARTS)
    with listener:
        Supervisor([server, worker]).run()


def serve(settings: Settings, socket_fd: int | None) -> int:
    """Run one server in this process until a signal; give the exit code."""
    from app.main import run  # noqa: PLC0415  torch, which the supervisor has no use for

    make_data_dir(settings)
    sys.path.insert(0, str(Path.cwd()))  # where `check` and the worker find builders too; a console script would not
    return run(settings, None if socket_fd is None else socket.socket(fileno=socket_fd))


def prepare(settings: Settings) -> str | None:
    """Make the data folder and its database fit to serve; give the admin key if one was made just now."""
    make_data_dir(settings)
    database = Database(settings.database_address)
    try:
        upgrade(database)
        return KeyRing(database).ensure_admin(settings.admin_key)
    finally:
        database.close()


def answers(settings: Settings) -> bool:
    """Whether the server on this machine answers requests."""
    try:
        return httpx.get(f"{banner.address(settings)}/livez", timeout=0.5, trust_env=False).is_success
    except httpx.TransportError:
        return False
