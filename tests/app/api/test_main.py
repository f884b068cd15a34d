"""Starting: refused with a reason, or listening; and requests whose asker has left."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.main import create_app, run
from app.settings import Settings
from app.storage.database import Database

FEATURES = {"inputs": [{"features": [1.0, 2.0, 3.0, 4.0]}]}


def test_a_database_that_is_not_up_to_date_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Database(f"sqlite:///{tmp_path / 'perennial.db'}").close()

    assert run(Settings(data_dir=tmp_path)) == 2

    assert "perennial db upgrade" in capsys.readouterr().err


def test_auth_off_is_refused_where_others_can_reach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Settings(data_dir=tmp_path, auth="off", host="0.0.0.0")) == 2

    assert "loopback" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(make_settings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run(make_settings(port=port, admin_key="k" * 40)) == 2

    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_composing_starts_nothing(make_settings: Any) -> None:
    before = threading.active_count()

    create_app(make_settings()).state.parts.batcher.stop()

    assert threading.active_count() == before


def test_nothing_is_computed_for_a_client_that_has_gone(service: Any, portal: Any) -> None:
    service.create()
    predictor = service.parts.live_models.get("iris").predictor()
    service.join("iris", window_ms=10_000)
    decoded: list[bytes] = []
    decode_many = predictor.decode_many

    def note(contents: Sequence[bytes]) -> Any:
        decoded.extend(contents)
        return decode_many(contents)

    predictor.decode_many = note

    async def ask_and_leave() -> list[Any]:
        messages = [{"type": "http.request", "body": BODY, "more_body": False}, {"type": "http.disconnect"}]
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.sleep(0)
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await service.app(scope(), receive, send)
        return sent

    sent = portal.call(ask_and_leave)
    service.join("iris")
    service.post("/v1/models/iris/predict", json=FEATURES)  # behind it in the queue

    assert sent[0]["status"] == 499
    assert len(decoded) == 1
    assert service.parts.batcher.inflight == 0


BODY = b'{"inputs": [{"features": [9.0, 9.0, 9.0, 9.0]}]}'


def scope() -> dict[str, Any]:
    headers = {
        "host": "127.0.0.1",
        "authorization": "Bearer an-admin-key-for-tests-0123456789abcdef",
        "content-type": "application/json",
    }
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/models/iris/predict",
        "raw_path": b"/v1/models/iris/predict",
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 8000),
    }
