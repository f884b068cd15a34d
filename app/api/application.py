"""The application as servers call it: the short way first, then FastAPI with all that is around it."""

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from app.api.express import Express


class Application(FastAPI):
    """FastAPI, with a short way before it where one is set."""

    express: Express | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        quick = self.express.takes(scope) if self.express is not None else None
        if quick is None or self.express is None:
            await super().__call__(scope, receive, send)
        else:
            await self.express.answer(quick, scope, receive, send)
