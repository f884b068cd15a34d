"""Takes connections from a listening socket that several processes share, so that each holds about as many.

An event loop that accepts by itself takes all it finds: of a burst of keep-alive connections one process gets most,
for good. Here each process shows the others how many it holds, and whoever holds more than another leaves a new
connection to it for a few milliseconds. Nothing is dealt out beforehand, so a dead process strands no connection.
Called by the server that serves them; knows nothing of HTTP.
"""

import mmap
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from app.log import get_logger

log = get_logger(__name__)

LEAVE_SECONDS = 0.001  # between two looks whether another has taken a connection that was left to it
LEAVE_LOOKS = 8  # then it is taken here, and the other is slow, or dead:
GREEDY_SECONDS = 0.1  # so long nothing is left to anybody
FULL_SECONDS = 0.2  # to wait when no connection can be had, for want of descriptors
TAKES_NONE = (1 << 31) - 1


class Shares:
    """How many connections each of several processes holds, in a file that they all map."""

    def __init__(self, file: Path, number: int, of: int) -> None:
        self._number = number - 1
        with file.open("ab") as made:
            made.truncate(4 * of)
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), 4 * of)
        self._held = memoryview(self._map).cast("i")
        self.show(TAKES_NONE)

    def show(self, held: int) -> None:
        """Let the others see how many this process holds."""
        self._held[self._number] = held

    def least(self) -> int:
        """Give the number that the process with the fewest holds."""
        return min(self._held)


class Acceptor:
    """One thread that waits for connections and hands them over."""

    def __init__(
        self, listener: socket.socket, shares: Shares, *, held: Callable[[], int], take: Callable[[socket.socket], None]
    ) -> None:
        """`held` says how many connections there are, `take` is handed each new one; both in this object's thread."""
        self._listener = listener
        self._shares = shares
        self._held = held
        self._take = take
        self._waking, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="acceptor", daemon=True)

    def start(self) -> None:
        self._listener.setblocking(False)
        self._shares.show(self._held())
        self._thread.start()

    def stop(self) -> None:
        """Return when no more connections are taken."""
        self._wake.close()
        if self._thread.is_alive():
            self._thread.join(5)
        self._waking.close()

    def _run(self) -> None:
        try:
            self._take_all()
        finally:  # else the others would leave connections to one that takes none
            self._shares.show(TAKES_NONE)

    def _take_all(self) -> None:
        coming, stopping = select.poll(), select.poll()
        coming.register(self._listener, select.POLLIN)
        for both in (coming, stopping):
            both.register(self._waking, select.POLLIN | select.POLLHUP)
        looks = 0  # in a row, at a connection that was left to others
        greedy_until = 0.0
        while True:
            self._shares.show(self._held())
            if any(file == self._waking.fileno() for file, _ in coming.poll()):
                return
            held = self._held()
            self._shares.show(held)
            if held > self._shares.least() and time.monotonic() >= greedy_until:
                if looks < LEAVE_LOOKS:
                    looks += 1
                    stopping.poll(1000 * LEAVE_SECONDS)
                    continue
                greedy_until = time.monotonic() + GREEDY_SECONDS
            looks = 0
            self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another was quicker, or the client has left
            return
        except OSError:
            log.warning("connection not accepted", exc_info=True)
            threading.Event().wait(FULL_SECONDS)
            return
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # the client has left meanwhile
            connection.close()
            return
        self._take(connection)
