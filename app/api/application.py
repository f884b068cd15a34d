"""The application as servers call it: the short way first, then FastAPI with all that is around it."""

from asyncio import Protocol
from typing import Any

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.express import Express
from app.api.quick_http import QuickHttp


class Application(FastAPI):
    """FastAPI, with a short way before it where one is set."""

    express: Express | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        quick = self.express.takes(scope) if self.express is not None else None
        if quick is None or self.express is None:
            await super().__call__(scope, receive, send)
        else:
            await self.express.answer(quick, scope, receive, send)

    def protocol(self, *args: Any, **kwargs: Any) -> Protocol:
        """Make what uvicorn serves one connection with."""
        if self.express is None:
            return HttpToolsProtocol(*args, **kwargs)
        return QuickHttp(*args, express=self.express, **kwargs)
