"""Versions that change only the head are swapped under load, by their own small files, over one backbone."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from uuid_utils import uuid7

from app.loading import VersionLoader
from app.networks.serialization import to_bytes
from app.storage.claims import Outcome
from app.storage.database import Database
from app.storage.intake import Intake, NewSample
from app.storage.queue import SampleQueue
from app.storage.registry import ModelRegistry
from app.storage.states import ArtifactKind, Verdict
from app.storage.tables import Version
from app.storage.weights import WeightStore

PREDICT = "/v1/models/iris/predict"
FEATURES = {"inputs": [{"features": [1.0, 2.0, 3.0, 4.0]}] * 4}
LABELS = "abc"


class Line:
    """A worker's hand on the line of `iris`: publishes deltas whose answer is always one label."""

    def __init__(self, service: Any) -> None:
        self.database = Database(service.settings.database_address)
        self.weights = WeightStore(service.settings.weights_dir)
        self.registry = ModelRegistry(self.database)
        self.loader = VersionLoader(self.registry, self.weights, {}, lambda source: {}, keep=1)

    def publish(self, winner: int) -> Version:
        model = self.registry.model("iris")
        queue = SampleQueue(self.database)
        content = torch.rand(4, dtype=torch.float64).numpy().tobytes()
        Intake(self.database, 1000).put(model, [NewSample(content, "a", None, "test", None, None)], "test")
        claim = queue.claim(model.id, worker="test", lease_seconds=30, limit=100)
        assert claim is not None
        network = self.loader.load(claim.parent)
        head = {"head.weight": torch.zeros(3, network.head_width), "head.bias": torch.eye(3)[winner] * 10}
        delta = self.loader.delta(network, claim.parent)
        version_id = str(uuid7())
        file = self.weights.write(version_id, ArtifactKind.WEIGHTS, to_bytes({**delta.tensors, **head}))
        return queue.commit(
            claim, Outcome(version_id, network.spec, Verdict.PROMOTED, "test", {}, file, base_id=delta.base_id)
        )

    def file(self, version: Version) -> Path:
        (path,) = (path for path in self.weights._root.glob(f"*/{version.id}.safetensors"))
        return path


@pytest.fixture
def line(service: Any) -> Iterator[Line]:
    service.create()
    line = Line(service)
    yield line
    line.database.close()


def current(service: Any) -> Any:
    return service.parts.live_models.get("iris").current.predictor


def test_deltas_are_swapped_under_load_without_a_failed_or_mixed_answer(service: Any, line: Line) -> None:
    service.publish("iris", winner=0)  # a whole version, the base of all that follow
    base = line.registry.version("iris", 2)
    assert service.parts.refresher.wait_for(1, 2, 10)
    backbone = current(service)._network.backbone
    line.publish(0)
    line.file(base).unlink()  # from here on whoever reads it again fails
    winners: dict[int, int] = {2: 0, 3: 0}
    stop = threading.Event()
    answers: list[tuple[int, int, set[str]]] = []

    def ask() -> None:
        while not stop.is_set():
            answer = service.post(PREDICT, json=FEATURES)
            body = answer.json()
            labels = {one["label"] for one in body.get("predictions", ())}
            answers.append((answer.status_code, body.get("version", 0), labels))

    with ThreadPoolExecutor(3) as clients:
        asking = [clients.submit(ask) for _ in range(3)]
        try:
            for number in range(4, 23):
                winners[number] = number % 3
                assert line.publish(number % 3).base_id == base.id
                assert service.parts.refresher.wait_for(1, number, 10)
                assert current(service)._network.backbone is backbone
            assert service.post("/v1/models/iris/rollback").json()["live"] == 21
        finally:
            stop.set()
        for one in asking:
            one.result(20)

    assert {status for status, _, _ in answers} == {200}
    assert all(labels == {LABELS[winners[version]]} for _, version, labels in answers)
    assert len({version for _, version, _ in answers}) > 3


def test_a_server_that_starts_without_the_base_serves_what_does_not_stand_on_it(
    start: Any, service: Any, line: Line
) -> None:
    service.publish("iris", winner=0)
    for _ in range(3):
        line.publish(1)
    line.file(line.registry.version("iris", 2)).unlink()

    second = start()

    live = second.parts.live_models
    assert second.parts.refresher.wait_for(1, 4, 10)
    assert not second.parts.refresher.wait_for(1, 5, 0.1)
    assert second.post(PREDICT, json=FEATURES).json()["version"] == 1
    why = live.get("iris").error
    assert "Version 5 could not be loaded" in why
    assert "version 2" in why
    assert "from a copy" in why
    assert "Serving version 1 meanwhile" in why
