"""What goes wrong or takes long at one model is no other model's trouble."""

import json
import threading
import time
from typing import Any

import pytest
from sqlalchemy import text
from torch import nn

from app.serving import ways
from app.serving.refresher import LOADING_THREADS
from app.storage.database import Database


def test_trials_of_backbones_keep_no_version_from_loading(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trying, go_on = threading.Event(), threading.Event()

    def slow(network: nn.Module, *_: object) -> nn.Module:
        trying.set()
        assert go_on.wait(20)
        return network

    monkeypatch.setattr(ways, "packed", slow)
    service = start()
    try:
        picture = {"input": {"kind": "image", "size": 16, "channels": 3}}
        for number in range(LOADING_THREADS):
            service.create(f"picture-{number}", **picture)
        assert trying.wait(10)

        service.create("iris")
        service.publish("iris", winner=1)

        assert service.parts.refresher.wait_for(LOADING_THREADS + 1, 2, 10)
        assert not go_on.is_set()
    finally:
        go_on.set()


def test_the_server_stops_without_waiting_for_a_trial_to_end(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trying = threading.Event()

    def slow(network: nn.Module, *_: object) -> nn.Module:
        trying.set()
        return network

    monkeypatch.setattr(ways, "packed", slow)
    monkeypatch.setattr(ways, "_ROUNDS", 20_000)  # a trial of a minute
    service = start()
    service.create("picture", input={"kind": "image", "size": 16, "channels": 3})
    assert trying.wait(10)

    began = time.monotonic()
    service.parts.refresher.stop()

    assert time.monotonic() - began < 5


def test_a_strange_row_of_one_model_stops_no_other(start: Any) -> None:
    service = start()
    service.create("a-strange-one")
    service.create("iris")
    database = Database(service.settings.database_address)
    try:
        with database.engine.begin() as connection:
            connection.execute(
                text("UPDATE models SET batching = :strange WHERE name = 'a-strange-one'"),
                {"strange": json.dumps({"max_items": "many"})},
            )
    finally:
        database.close()
    for name in ("iris", "a-strange-one"):
        service.publish(name, winner=2)

    assert service.parts.refresher.wait_for(2, 2, 10)
    assert service.parts.refresher.wait_for(1, 2, 10), "and it is served itself, joined as before"
