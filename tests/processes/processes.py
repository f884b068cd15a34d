"""Real server and worker processes for tests: started, watched with deadlines, killed, and always cleaned up."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
ADMIN_KEY = "prn_an-admin-key-for-tests-that-is-long-enough"
DEADLINE_SECONDS = 60.0


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


@dataclass
class Installation:
    """Where a service's database and files lie, and the settings its processes get."""

    url: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    def environment(self, **settings: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PERENNIAL_")}
        ours = {
            "DATABASE_URL": self.url,
            "DATA_DIR": str(self.folder),
            "ADMIN_KEY": ADMIN_KEY,
            "POLL_SECONDS": "0.05",
            "LEASE_SECONDS": "2",
            **self.settings,
            **settings,
        }
        return {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            **{f"PERENNIAL_{name}": value for name, value in ours.items()},
        }

    @contextmanager
    def process(self, module: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `python -m module` for the block; what still runs afterwards is killed."""
        log = self.folder / f"{module}-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module], env=self.environment(**settings), cwd=ROOT, stderr=output, stdout=output
            )
            try:
                yield process
            except BaseException:
                sys.stderr.write(log.read_text(errors="replace")[-4000:])
                raise
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                process.wait(timeout=DEADLINE_SECONDS)

    @contextmanager
    def server(self, **settings: str) -> Iterator[httpx.Client]:
        """Run a server for the block, ready before it begins."""
        port = free_port()
        with self.process("app", PORT=str(port), **settings) as process:
            with client(port) as http:
                wait_until(lambda: process.poll() is not None or is_ready(http), "the server is ready")
                assert process.poll() is None, "the server did not start"
                yield http
            if process.poll() is None:
                process.terminate()
                assert process.wait(timeout=DEADLINE_SECONDS) == 0


def client(port: int) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=30
    )


def is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ask a process to end, as a supervisor would; its exit code."""
    process.terminate()
    return process.wait(timeout=DEADLINE_SECONDS)
