"""The limit of HTTP in Python: uvicorn answering a constant, once it has read the body."""

from collections.abc import Awaitable, Callable
from typing import Any

from system import System, Trial

BODY = b'{"label": 0, "score": 1.0}'


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """The smallest ASGI application."""
    if scope["type"] == "lifespan":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def _command(trial: Trial) -> list[str]:
    return [
        *(str(trial.python), "-m", "uvicorn", "on_nothing:app", "--port", str(trial.port), "--lifespan", "off"),
        *("--no-access-log", "--log-level", "warning"),
    ]


SYSTEMS = (System("uvicorn, a constant", _command, answer=None, threads=(1,)),)
