"""A `perennial up` of its own: started on a free port in a folder, spoken to over HTTP, stopped again.

Called by the demo and the benchmarks, which must meet the same processes a user runs.
"""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from app.cli.connection import Connection
from app.cli.supervisor import CannotStart

STOP_SECONDS = 30.0
LOOK_SECONDS = 0.1


class Instance:
    """A server and a worker of their own, over one data folder."""

    def __init__(self, folder: Path, port: int = 0, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.key = f"prn_{secrets.token_urlsafe(32)}"
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = folder / "up.log"
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The supervisor's process id; raises CannotStart where nothing runs."""
        if self._process is None:
            raise CannotStart("Nothing runs here.")
        return self._process.pid

    def start(self, timeout_seconds: float = 90.0) -> None:
        """Start it and wait until it is ready. Raises CannotStart with the end of its log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Settings of the surroundings are the user's own service's, not this one's.
        surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PERENNIAL_")}
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.cli.entry", "up"],
                env=surroundings
                | {
                    "PERENNIAL_HOST": "127.0.0.1",
                    "PERENNIAL_PORT": str(self.port),
                    "PERENNIAL_DATA_DIR": str(self.folder.resolve()),
                    "PERENNIAL_DATABASE_URL": "",
                    "PERENNIAL_WEIGHTS_URL": "",
                    "PERENNIAL_ADMIN_KEY": self.key,
                    "PYTHONUNBUFFERED": "1",
                }
                | self._settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to pass on, in order
            )
        deadline = time.monotonic() + timeout_seconds
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise CannotStart(f"The service did not start. Its log, {self.log_file}, ends with:\n{self._log_end()}")
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """Stop it in order; kill it when that takes too long. Safe to call twice."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def wait(self) -> None:
        """Wait until it ends by itself."""
        if self._process is not None:
            self._process.wait()

    def connection(self, timeout_seconds: float = 60.0) -> Connection:
        """A client of it that may do everything."""
        return Connection(self.url, self.key, timeout_seconds)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1.0, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _log_end(self) -> str:
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-15:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
