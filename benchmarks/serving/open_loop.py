"""Requests at a rate of their own, whatever the server does: an open loop, over a few kept connections.

Called by the interference benchmark. A latency counts from the time at which the request was due, so that a server
which holds requests up cannot hide it by slowing its client down.
"""

import asyncio
import itertools
import re
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import uvloop

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """When it was due (seconds since 1970), how long its answer took from then on, and the status (0: none came)."""

    due: float
    seconds: float
    status: int


@dataclass
class Target:
    """Where to send what: the same HTTP requests over and over."""

    port: int
    requests: Sequence[bytes]

    @classmethod
    def posting(cls, port: int, path: str, key: str, kind: str, bodies: Sequence[bytes]) -> "Target":
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}"
        return cls(port, [f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies])


@dataclass
class Load:
    """What is being sent, until `stop`; `done` grows meanwhile."""

    target: Target
    connections: int
    rate: float | None  # a second; None: as fast as answers come
    done: list[Request] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Send until told to stop, and wait for what is under way."""
        due: deque[float] = deque()
        waiting = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(self._connection(due, waiting)) for _ in range(self.connections)]
        if self.rate is None:
            await self._stopping.wait()
        else:
            start = time.time()
            for number in itertools.count():
                at = start + number / self.rate
                pause = at - time.time()
                if pause > 0:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), pause)
                if self._stopping.is_set():
                    break
                due.append(at)
                waiting.release()
        for _ in tasks:
            waiting.release()
        await asyncio.gather(*tasks)

    async def _connection(self, due: deque[float], waiting: asyncio.Semaphore) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target.port)
        requests = itertools.cycle(self.target.requests)
        try:
            while True:
                if self.rate is not None:
                    await waiting.acquire()
                    if not due:
                        return
                elif self._stopping.is_set():
                    return
                at = due.popleft() if due else time.time()
                writer.write(next(requests))
                status = await _status(reader)
                self.done.append(Request(at, time.time() - at, status))
                if status == 0:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.target.port)
        finally:
            writer.close()


async def _status(reader: asyncio.StreamReader) -> int:
    """Read one answer to its end; its status, or 0 where the connection broke."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        await reader.readexactly(int(length[1]) if length else 0)
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0
    return int(head.split(b" ", 2)[1])


def capacity(target: Target, connections: int, seconds: float) -> float:
    """Answers a second when each connection asks as soon as it was answered."""

    async def measure() -> float:
        load = Load(target, connections, None)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(seconds)
        load.stop()
        await running
        ends = sorted(one.due + one.seconds for one in load.done if one.status == 200)
        return (len(ends) - 1) / (ends[-1] - ends[0])

    return uvloop.run(measure())
