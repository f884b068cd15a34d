"""HTTP/1.1 as uvicorn speaks it, with the short way for predict requests that arrive whole.

Given to uvicorn by the composition root. A request in one piece that Express takes is answered without an ASGI scope,
events and messages, which cost more than a small network does. Whatever is otherwise (a body in several pieces,
requests sent ahead of answers, a client that does not read, another call) goes uvicorn's own way.
"""

import asyncio
from typing import Any

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.envelope import ADDED
from app.api.express import Express, Quick

_ADDED = b"".join(name + b": " + value + b"\r\n" for name, value in ADDED)


class QuickCycle:
    """One request on the short way, in place of uvicorn's own record of a request, which others ask and tell."""

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self._gone: asyncio.Future[None] | None = None

    @property
    def message_event(self) -> "QuickCycle":
        """What is set when something has changed. No attribute: what holds itself is only found by the collector."""
        return self

    def set(self) -> None:
        """Hear that something has changed: here only that the client has gone."""
        if self.disconnected and self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    async def gone(self) -> None:
        """Wait until the client has gone."""
        if not self.disconnected:
            self._gone = asyncio.get_running_loop().create_future()
            await self._gone


class QuickHttp(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, express: Express, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._express = express
        self._held: Quick | None = None  # its headers were read, its body is being read
        self._body = b""
        self._sent = False  # an answer, since the last piece came

    def data_received(self, data: bytes) -> None:
        self._sent = False
        super().data_received(data)
        if self._held is not None and not self.transport.is_closing():
            body = self._body
            self._let_go()
            super().on_headers_complete()
            if body:
                super().on_body(body)
        if self.cycle is not None and not self.cycle.response_complete:
            self._unset_keepalive_if_required()  # set by what was answered within this piece

    def on_headers_complete(self) -> None:
        self._held = self._taken()
        if self._held is None:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._held is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        quick = self._held
        if quick is None:
            super().on_message_complete()
            return
        body = self._body
        self._let_go()
        self._begin(quick, body)

    def _begin(self, quick: Quick, body: bytes) -> None:
        self.cycle = cycle = QuickCycle(keep_alive=self.parser.should_keep_alive())  # type: ignore[assignment]
        if self._express.answers_in_turn(quick, body, lambda answer: self._send(answer, cycle), id(self)):
            return
        task = self.loop.create_task(self._answer(quick, body, cycle))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _taken(self) -> Quick | None:
        """Say what the short way is to answer; nothing while an answer is under way or not read.

        And one request of a piece: one client's thousand must not be answered before anybody else is heard.
        """
        busy = self._sent or self.pipeline or (self.cycle is not None and not self.cycle.response_complete)
        if busy or self.flow.write_paused or self.parser.get_method() != b"POST" or self.root_path:
            return None
        if self.parser.get_http_version() != "1.1":
            return None
        return self._express.takes_post(self.url, self.headers)

    def _let_go(self) -> None:
        self._held, self._body = None, b""

    async def _answer(self, quick: Quick, body: bytes, cycle: QuickCycle) -> None:
        async def whole() -> bytes:
            return body

        self._send(await self._express.respond(quick, whole, cycle.gone), cycle)

    def _send(self, answer: Response | None, cycle: QuickCycle) -> None:
        if cycle.response_complete:
            return
        cycle.response_complete = self._sent = True
        if answer is None or cycle.disconnected or self.transport.is_closing():
            return
        self.transport.write(self._written(answer, cycle))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _written(self, answer: Response, cycle: QuickCycle) -> bytes:
        head = [STATUS_LINE[answer.status_code]]
        for name, value in (*self.server_state.default_headers, *answer.raw_headers):
            head += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            head.append(b"connection: close\r\n")
        return b"".join((*head, _ADDED, b"\r\n", answer.body))
