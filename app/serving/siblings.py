"""The other serving processes of this host, with which this one shares a port.

Their supervisor makes a folder; in it each process listens on a local socket of its own, and may keep one file that
its successor in the same place finds. There they ask one another for figures, and say that the registry has news. A
process that is alone asks nobody and opens nothing. Knows words and bytes, and nothing of what they mean.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from app.log import get_logger
from app.serving.acceptor import Shares

log = get_logger(__name__)

WORD_BYTES = 64
ASK_SECONDS = 1.0  # for all answers together; who is slower is left out
STOP_SECONDS = 5.0
FULL_SECONDS = 0.2  # to wait when nobody can be let in, for want of descriptors


@dataclass(frozen=True)
class Place:
    """Which of how many processes one is, and the folder they meet in."""

    folder: Path
    number: int  # 1, 2, … `of`
    of: int

    def written(self) -> str:
        """As one word of a command line, which `read` reads."""
        return f"{self.number}/{self.of}:{self.folder}"

    @classmethod
    def read(cls, written: str) -> Self:
        numbers, _, folder = written.partition(":")
        number, _, of = numbers.partition("/")
        return cls(Path(folder), int(number), int(of))

    @property
    def file(self) -> Path:
        """What the process in this place keeps for the one that comes after it."""
        return self.folder / f"{self.number}.json"

    def shares(self) -> Shares:
        """Where those who share the port see how many connections each holds."""
        return Shares(self.folder / "connections", self.number, self.of)

    def others(self) -> list[Self]:
        return [type(self)(self.folder, number, self.of) for number in range(1, self.of + 1) if number != self.number]

    def taken(self) -> bool:
        """Whether a process lives here that has come up."""
        try:
            self.connect(ASK_SECONDS).close()
        except OSError:
            return False
        return True

    def connect(self, seconds: float) -> socket.socket:
        """Connect to the process here. Raises OSError where there is none."""
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.settimeout(seconds)
            line.connect(self._address)
        except OSError:
            line.close()
            raise
        return line

    def listen(self) -> socket.socket:
        """Take the place; who was here before is dead."""
        Path(self._address).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(self._address)
            listener.listen(64)
        except OSError:
            listener.close()
            raise
        return listener

    @property
    def _address(self) -> str:
        return str(self.folder / f"{self.number}.sock")


class Siblings:
    """Asks the others and answers them. Safe to call from several threads."""

    def __init__(self, place: Place | None = None) -> None:
        self.place = place
        self.taking = False  # connections, or not yet
        self._others = [] if place is None else place.others()
        self._answers: Mapping[str, Callable[[], bytes | None]] = {}
        self._listener: socket.socket | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="siblings", daemon=True)

    def start(self, answers: Mapping[str, Callable[[], bytes | None]]) -> None:
        """Answer each of these words from now on, in a thread."""
        if self.place is not None:
            self._answers = answers
            self._listener = self.place.listen()
            self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        if self._listener is not None:
            self._stopping.set()
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # ends the waiting for the next
            self._thread.join(STOP_SECONDS)
            self._listener.close()

    def tell(self, word: str) -> None:
        """Say a word to all others, and wait for no answer."""
        for line, _ in self._lines(word, time.monotonic() + ASK_SECONDS):
            line.close()

    def ask(self, word: str) -> dict[int, bytes]:
        """Give what the others answer, by their number; who is not there, or too slow, is left out.

        An answer is empty where giving it failed, and may be cut short where its giver died.
        """
        deadline = time.monotonic() + ASK_SECONDS
        answers = {}
        for line, other in self._lines(word, deadline):
            with line, suppress(OSError):
                answers[other.number] = _read(line, deadline)
        return answers

    def _lines(self, word: str, deadline: float) -> list[tuple[socket.socket, Place]]:
        lines = []
        for other in self._others:
            try:
                line = other.connect(max(0.01, deadline - time.monotonic()))
                line.sendall(f"{word}\n".encode())
            except OSError:
                continue
            lines.append((line, other))
        return lines

    def _run(self) -> None:
        assert self._listener is not None
        while not self._stopping.is_set():
            try:
                line, _ = self._listener.accept()
            except OSError:
                if not self._stopping.is_set():
                    log.warning("sibling not let in", exc_info=True)
                self._stopping.wait(FULL_SECONDS)
                continue
            with line:
                self._answer(line)

    def _answer(self, line: socket.socket) -> None:
        with suppress(OSError):  # it waits no longer
            line.settimeout(ASK_SECONDS)
            word = line.recv(WORD_BYTES)
            if word:  # who asks nothing looks whether somebody is here
                line.sendall(self._told(word))

    def _told(self, word: bytes) -> bytes:
        try:
            return self._answers[word.decode().strip()]() or b""
        except Exception:  # the next one is to be answered all the same
            log.warning("sibling not answered", exc_info=True)
            return b""


def _read(line: socket.socket, deadline: float) -> bytes:
    parts: list[bytes] = []
    while True:
        line.settimeout(max(0.01, deadline - time.monotonic()))
        part = line.recv(1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
