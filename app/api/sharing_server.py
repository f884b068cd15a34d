"""uvicorn serving the connections that an Acceptor hands it, beside other processes that do the same."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from app.log import get_logger
from app.serving.acceptor import Acceptor, Shares

log = get_logger(__name__)

READY_SECONDS = 10.0  # in which the others answer; a process that is not ready by then says so itself


class SharingServer(uvicorn.Server):
    """Takes no connection before it is ready, and only its share."""

    def __init__(
        self,
        config: uvicorn.Config,
        shares: Shares,
        *,
        ready: Callable[[float], bool],
        taking: Callable[[], None],
    ) -> None:
        """`ready` waits, at most so many seconds; `taking` is called when the first connection may come."""
        super().__init__(config)
        self._shares = shares
        self._ready = ready
        self._taking = taking
        self._acceptor: Acceptor | None = None
        self._taken = 0  # counted by the acceptor's thread
        self._opened = 0  # and on the event loop
        self._opening: set[asyncio.Task[None]] = set()
        self._beginning: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, and take connections from the one socket as soon as it is ready."""
        await super().startup(sockets=[])
        if self.should_exit:  # told meanwhile, or the application did not start
            return
        assert sockets is not None
        (listener,) = sockets
        loop = asyncio.get_running_loop()

        def take(connection: socket.socket) -> None:
            self._taken += 1
            loop.call_soon_threadsafe(self._open, connection)

        self._acceptor = Acceptor(listener, self._shares, held=self._held, take=take)
        self._beginning = asyncio.create_task(self._begin(self._acceptor))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, then end those that are open in order."""
        if self._beginning is not None:
            self._beginning.cancel()
            with suppress(asyncio.CancelledError):
                await self._beginning
        if self._acceptor is not None:
            await asyncio.to_thread(self._acceptor.stop)
        await asyncio.gather(*self._opening, return_exceptions=True)
        await super().shutdown(sockets=sockets)

    async def _begin(self, acceptor: Acceptor) -> None:
        ready = await asyncio.to_thread(self._ready, READY_SECONDS)
        self._taking()
        acceptor.start()
        log.info("taking connections", ready=ready)

    def _held(self) -> int:
        return len(self.server_state.connections) + self._taken - self._opened

    def _open(self, connection: socket.socket) -> None:
        opening = asyncio.get_running_loop().create_task(self._serve_connection(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _serve_connection(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        except OSError:  # it is closed already
            connection.close()
        finally:
            self._opened += 1

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made
