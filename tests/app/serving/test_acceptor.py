"""Acceptors that share a port, as several processes would: here several in one."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.serving.acceptor import LEAVE_SECONDS, TAKES_NONE, Acceptor, Shares
from app.serving.listener import listen

DEADLINE_SECONDS = 20.0


class Taker:
    """One process's side: keeps what it was handed."""

    def __init__(self, listener: socket.socket, file: Path, number: int, of: int, arrived: threading.Semaphore) -> None:
        self.connections: list[socket.socket] = []
        self.arrived = arrived
        self.shares = Shares(file, number, of)
        self.acceptor = Acceptor(listener, self.shares, held=lambda: len(self.connections), take=self.take)

    def take(self, connection: socket.socket) -> None:
        self.connections.append(connection)
        self.arrived.release()

    def close(self) -> None:
        self.acceptor.stop()
        for connection in self.connections:
            connection.close()


@contextmanager
def takers(file: Path, count: int) -> Iterator[tuple[socket.socket, list[Taker], threading.Semaphore]]:
    arrived = threading.Semaphore(0)
    with listen("127.0.0.1", 0) as listener:
        found = [Taker(listener, file, number, count, arrived) for number in range(1, count + 1)]
        try:
            yield listener, found, arrived
        finally:
            for taker in found:
                taker.close()


def connect(listener: socket.socket, count: int) -> list[socket.socket]:
    return [socket.create_connection(listener.getsockname()) for _ in range(count)]


def test_a_burst_is_shared_out_evenly_and_each_connection_is_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However late a busy machine lets the others look: a connection that is left to them is not taken back here.
    monkeypatch.setattr("app.serving.acceptor.LEAVE_LOOKS", DEADLINE_SECONDS / LEAVE_SECONDS)
    with takers(tmp_path / "connections", 4) as (listener, found, arrived):
        clients = connect(listener, 40)  # all of them wait already when the first looks
        for taker in found:
            taker.shares.show(0)
        for taker in found:
            taker.acceptor.start()
        assert all(arrived.acquire(timeout=DEADLINE_SECONDS) for _ in range(40))
        for client in clients:
            client.close()
        shares = [len(taker.connections) for taker in found]
    assert sum(shares) == 40
    assert max(shares) - min(shares) <= 8, shares


def test_those_that_are_dead_or_take_none_hold_up_nobody(tmp_path: Path) -> None:
    file = tmp_path / "connections"
    with takers(file, 3) as (listener, found, arrived):
        found[1].shares.show(0)  # as one that died with no connection left it
        found[0].acceptor.start()
        clients = connect(listener, 10)
        assert all(arrived.acquire(timeout=DEADLINE_SECONDS) for _ in range(10))
        for client in clients:
            client.close()
        assert len(found[0].connections) == 10
        found[0].acceptor.stop()
    assert struct.unpack("iii", file.read_bytes()) == (TAKES_NONE, 0, TAKES_NONE)


def test_one_that_stopped_takes_no_more_and_the_others_go_on(tmp_path: Path) -> None:
    with takers(tmp_path / "connections", 2) as (listener, found, arrived):
        for taker in found:
            taker.acceptor.start()
        found[0].acceptor.stop()
        clients = connect(listener, 6)
        assert all(arrived.acquire(timeout=DEADLINE_SECONDS) for _ in range(6))
        for client in clients:
            client.close()
        assert (len(found[0].connections), len(found[1].connections)) == (0, 6)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_that_fails_leaves_connections_to_others(tmp_path: Path) -> None:
    taken = threading.Event()

    def fail(connection: socket.socket) -> None:
        connection.close()
        taken.set()
        raise RuntimeError

    file = tmp_path / "connections"
    with listen("127.0.0.1", 0) as listener:
        acceptor = Acceptor(listener, Shares(file, 1, 1), held=lambda: 0, take=fail)
        acceptor.start()
        (client,) = connect(listener, 1)
        with client:
            assert taken.wait(DEADLINE_SECONDS)
        acceptor.stop()
    assert struct.unpack("i", file.read_bytes()) == (TAKES_NONE,)
