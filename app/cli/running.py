"""What `perennial up` and `perennial serve` do: servers and a worker under a supervisor, and one server by itself.

Called by the commands of `processes`. Imports SQLAlchemy at once; torch only in a server's own process.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.cli import banner
from app.cli.configuration import environment, make_data_dir
from app.cli.supervisor import Child, Supervisor
from app.log import configure, get_logger
from app.serving.listener import listen
from app.serving.siblings import Place
from app.settings import Settings
from app.storage.database import Database
from app.storage.keys import KeyRing
from app.storage.migrate import require_current, upgrade

WORKER_STARTS = 2

log = get_logger(__name__)


def up(settings: Settings) -> None:
    """Migrate, make the first admin key, start servers and a worker, and keep them running until a signal."""
    configure(settings.log_level, settings.log_format)
    listener = listen(settings.host, settings.port)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    made = prepare(settings)
    worker = Child("worker", [sys.executable, "-m", "worker"], _variables(settings), starts=WORKER_STARTS)
    with listener, meeting_place(settings) as folder:
        servers = _servers(settings, listener, folder, when_up=lambda: banner.show(settings, made))
        Supervisor([*servers, worker]).run()


def serve(settings: Settings, socket_fd: int | None, place: Place | None) -> int:
    """Run one server in this process, or several under a supervisor, until a signal; give the exit code."""
    make_data_dir(settings)
    if settings.processes > 1 and socket_fd is None:
        return _serve_with_several(settings)
    from app.main import run  # noqa: PLC0415  torch, which the supervisor has no use for

    sys.path.insert(0, str(Path.cwd()))  # where `check` and the worker find builders too; a console script would not
    return run(settings, None if socket_fd is None else socket.socket(fileno=socket_fd), place)


def _serve_with_several(settings: Settings) -> int:
    configure(settings.log_level, settings.log_format)
    database = Database(settings.database_address)
    try:
        require_current(database)
        made = KeyRing(database).ensure_admin(settings.admin_key)
    finally:
        database.close()
    listener = listen(settings.host, settings.port)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    if made is not None:
        sys.stderr.write(f"The first admin key, shown once: {made}\n")
    log.info("listening", address=banner.address(settings), processes=settings.processes)
    with listener, meeting_place(settings) as folder:
        Supervisor(_servers(settings, listener, folder)).run()
    return 0


def _servers(
    settings: Settings, listener: socket.socket, folder: Path | None, when_up: Callable[[], None] | None = None
) -> list[Child]:
    """The serving processes; `when_up` is called when the first of them answers for the first time."""
    command = [sys.executable, "-m", "app.cli.entry", "serve", "--socket-fd", str(listener.fileno())]

    def server(name: str, more: list[str], up: Callable[[], bool], then: Callable[[], None] | None) -> Child:
        inherited = (listener.fileno(),)
        return Child(name, [*command, *more], _variables(settings), answers=up, when_up=then, files=inherited)

    if folder is None:
        return [server("server", [], lambda: answers(settings), when_up)]
    places = [Place(folder, number, settings.processes) for number in range(1, settings.processes + 1)]
    return [
        server(
            f"server {place.number}",
            ["--place", place.written()],
            (lambda: answers(settings)) if place.number == 1 else place.taken,
            when_up if place.number == 1 else None,
        )
        for place in places
    ]


@contextmanager
def meeting_place(settings: Settings) -> Iterator[Path | None]:
    """Make the folder where several serving processes find each other, for the block; one alone needs none."""
    if settings.processes == 1:
        yield None
    else:
        with tempfile.TemporaryDirectory(prefix="perennial-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)


def _variables(settings: Settings) -> dict[str, str]:
    return {**os.environ, **environment(settings), "PERENNIAL_ADMIN_KEY": ""}  # only digests from here on


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
