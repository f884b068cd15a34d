"""The server that shares its port, told to end before it has begun."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from app.api.sharing_server import SharingServer
from app.serving.acceptor import Shares
from app.serving.listener import listen


def test_who_is_told_to_end_while_it_starts_waits_for_nothing_and_takes_no_connection(tmp_path: Path) -> None:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.should_exit = True  # as a signal sets it
        yield

    asked = threading.Event()

    def ready(_: float) -> bool:
        asked.set()
        return False

    config = uvicorn.Config(FastAPI(lifespan=lifespan), log_config=None, ws="none")
    server = SharingServer(config, Shares(tmp_path / "connections", 1, 1), ready=ready, taking=asked.set)
    with listen("127.0.0.1", 0) as listener:
        asyncio.run(server.serve([listener]))

    assert not asked.is_set()
