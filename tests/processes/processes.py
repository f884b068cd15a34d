"""Real server and worker processes for tests: started, watched with deadlines, killed, and always cleaned up.

They are forked from one process that has imported everything already, since importing torch takes seconds.
"""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app.serving.listener import listen
from app.serving.siblings import Place

ADMIN_KEY = "prn_an-admin-key-for-tests-that-is-long-enough"
DEADLINE_SECONDS = 60.0

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["app.main", "worker.__main__", "torch._dynamo"])


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Look again and again, and fail with `what` once the time is over: another process cannot set our events."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Child:
    """A process of ours."""

    def __init__(
        self,
        module: str,
        environment: dict[str, str],
        log: Path,
        shared: tuple[socket.socket, Place] | tuple[()] = (),
    ) -> None:
        self._process = _FORKS.Process(target=_run, args=(module, environment, str(log), *shared))
        self._process.start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def stop(self) -> int | None:
        """Ask it to end, as a supervisor would; its exit code."""
        self._process.terminate()
        self._process.join(DEADLINE_SECONDS)
        return self.exit_code

    def end(self) -> None:
        """Kill it if it still runs."""
        if self._process.is_alive():
            self.send_signal(signal.SIGCONT)
            self._process.kill()
        self._process.join(DEADLINE_SECONDS)
        self._process.close()


def _run(
    module: str,
    environment: dict[str, str],
    log: str,
    listener: socket.socket | None = None,
    place: Place | None = None,
) -> None:
    for name in [name for name in os.environ if name.startswith("PERENNIAL_")]:
        del os.environ[name]
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if module == "worker":
        from worker.__main__ import main  # noqa: PLC0415  this is the other process

        sys.exit(main())
    from app.main import run  # noqa: PLC0415
    from app.settings import Settings  # noqa: PLC0415

    sys.exit(run(Settings(), listener, place))


@dataclass
class Installation:
    """Where a service's database and files lie, and the settings its processes get."""

    url: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def process(
        self, module: str, shared: tuple[socket.socket, Place] | tuple[()] = (), **settings: str
    ) -> Iterator[Child]:
        """Run the module, `app` or `worker`, for the block; what still runs afterwards is killed."""
        ours = {
            "DATABASE_URL": self.url,
            "DATA_DIR": str(self.folder),
            "ADMIN_KEY": ADMIN_KEY,
            "POLL_SECONDS": "0.05",
            "LEASE_SECONDS": "2",
            "WORKER_NICE": "0",
            **self.settings,
            **settings,
        }
        log = self.folder / f"{module}-{time.monotonic_ns()}.log"
        child = Child(module, {f"PERENNIAL_{name}": value for name, value in ours.items()}, log, shared)
        try:
            yield child
        except BaseException:
            sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}")
            raise
        finally:
            child.end()

    @contextmanager
    def server(self, **settings: str) -> Iterator[httpx.Client]:
        """Run a server for the block, ready before it begins and ended in order after it."""
        with self.running_server(**settings) as (child, http):
            yield http
            assert child.stop() == 0

    @contextmanager
    def running_server(self, **settings: str) -> Iterator[tuple[Child, httpx.Client]]:
        port = free_port()
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        with (
            self.process("app", PORT=str(port), **settings) as child,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as http,
        ):
            wait_until(lambda: child.exit_code is not None or is_ready(http), "the server is ready")
            assert child.exit_code is None, "the server did not start"
            yield child, http

    @contextmanager
    def several(self, count: int, **settings: str) -> Iterator[tuple[httpx.Client, Path]]:
        """Run so many servers on one port for the block, all taking connections; and the folder they meet in."""
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            listener = stack.enter_context(listen("127.0.0.1", 0))
            places = [Place(folder, number, count) for number in range(1, count + 1)]
            servers = [stack.enter_context(self.process("app", (listener, place), **settings)) for place in places]
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            http = stack.enter_context(httpx.Client(base_url=address, headers=headers, timeout=30))

            def taking() -> bool:
                logs = [log.read_text() for log in self.folder.glob("app-*.log")]
                return sum("taking connections" in log for log in logs) == count

            wait_until(taking, "all take connections")
            yield http, folder
            assert [server.stop() for server in servers] == [0] * count


def is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
