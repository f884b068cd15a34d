"""Child processes kept alive, servers and a worker: started, watched, restarted with back-off, stopped.

Called by `perennial up`. Knows nothing of models or the database: only commands, a listening socket and signals.

The supervisor owns the listening socket and hands it to each server it starts, so that requests which come while
a dead server is replaced wait for the next one instead of being refused. Children run in sessions of their own:
Ctrl-C in a terminal reaches the supervisor alone, which then stops them in order.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from app.errors import Unavailable
from app.log import get_logger

PR_SET_PDEATHSIG = 1
FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 10.0
SETTLED_SECONDS = 30.0  # a child that lived this long starts again with the shortest delay
UP_SECONDS = 30.0
LOOK_SECONDS = 0.1

log = get_logger(__name__)


class CannotStart(Unavailable):
    """A child never came up; nothing is left running."""


@dataclass
class Child:
    """One process and how often it came down.

    `starts` is how many times it may give up by itself, with an exit code, before it has ever been `up`. Afterwards,
    and when something else killed it, it is restarted without end.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    answers: Callable[[], bool] | None = None  # None: it answers nobody, and is up once it has lived for a while
    when_up: Callable[[], None] | None = None  # called when it is up for the first time
    files: tuple[int, ...] = ()  # descriptors it inherits
    starts: int = 1
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    deaths: int = 0  # in a row, without having settled
    up: bool = field(default=False)  # has been, once

    def start(self) -> None:
        """Start the process; it dies with this one, however this one ends."""
        self.started_at = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603  our own command line
            self.command,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            pass_fds=self.files,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509  the supervisor has a single thread
        )

    def look(self) -> None:
        """Notice what became of the process, and start it again when it is time."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.restart_at:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            if not self.up:
                self._see_whether_up(now - self.started_at)
            if now - self.started_at > SETTLED_SECONDS:
                self.deaths = 0
            return
        self.process = None
        self.deaths += 1
        if code > 0 and not self.up and self.deaths >= self.starts:
            raise CannotStart(f"The {self.name} ended at its start ({_ending(code)}). What it said stands above.")
        delay = min(FIRST_DELAY_SECONDS * 2 ** (self.deaths - 1), LONGEST_DELAY_SECONDS)
        self.restart_at = now + delay
        log.warning("child ended, restarting", child=self.name, ending=_ending(code), delay_seconds=delay)

    def _see_whether_up(self, lived_seconds: float) -> None:
        self.up = lived_seconds >= UP_SECONDS if self.answers is None else self.answers()
        if self.up and self.when_up is not None:
            self.when_up()

    def stop(self, deadline: float) -> None:
        """Wait for an orderly end until `deadline` (monotonic), then kill."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("child did not stop in time, killed", child=self.name)
            self.process.kill()
            self.process.wait()
        self.process = None

    def terminate(self) -> None:
        """Ask the process to end."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.terminate()


class Supervisor:
    """Keeps children running until a SIGTERM or SIGINT comes. Lives in a main thread, for the signals."""

    def __init__(self, children: Sequence[Child], stop_seconds: float = 20.0) -> None:
        self._children = children
        self._stop_seconds = stop_seconds

    def run(self) -> None:
        """Return after a signal, with all children stopped. Raises CannotStart when one never came up."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        before = {number: signal.signal(number, _note) for number in (signal.SIGTERM, signal.SIGINT)}
        wakeup = signal.set_wakeup_fd(writer)  # a signal's byte ends the wait below at once
        try:
            self._watch(reader)
        finally:
            self._stop()
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)

    def _watch(self, reader: int) -> None:
        for child in self._children:
            child.start()
        while not self._signalled(reader):
            for child in self._children:
                child.look()

    def _signalled(self, reader: int) -> bool:
        ready, _, _ = select.select([reader], [], [], LOOK_SECONDS)
        wanted = {signal.SIGTERM, signal.SIGINT}
        return bool(ready) and bool(wanted & set(os.read(reader, 64)))

    def _stop(self) -> None:
        deadline = time.monotonic() + self._stop_seconds
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.stop(deadline)


def _note(number: int, frame: FrameType | None) -> None:
    """Let the wake-up pipe tell; a handler must exist for the byte to be written."""


def _die_with(parent: int) -> Callable[[], None] | None:
    """Have the kernel kill a child when its supervisor dies, even by `kill -9` (Linux; elsewhere nothing)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def before_exec() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return before_exec


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
