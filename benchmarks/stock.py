"""A server over a folder that holds one model and many whole versions of it, made by hand: nothing learns here.

Version n answers every input with label n mod 3, so an answer shows which version gave it.
"""

import os
import secrets
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import torch
import torchvision
from uuid_utils import uuid7

from app.networks.catalog import build
from app.networks.network import Network
from app.networks.pretrained import base_weights_from
from app.networks.serialization import to_bytes
from app.networks.spec import NetworkSpec
from app.recipe import ImageInput, NetworkChoice, NewModel
from app.storage.database import Database
from app.storage.migrate import upgrade
from app.storage.registry import ModelRegistry
from app.storage.states import ArtifactKind, FileState, Verdict
from app.storage.tables import Artifact, Version
from app.storage.weights import WeightStore

LABELS = ("a", "b", "c")
START_SECONDS = 90.0


class Stock:
    """Makes the folder, and runs one server over it while the block lasts."""

    def __init__(self, folder: Path, *, architecture: str, size: int, versions: int, processes: int = 1) -> None:
        self.key = f"prn_{secrets.token_urlsafe(32)}"
        self.url = ""
        self.live = 1
        self._folder = folder
        self._architecture = architecture
        self._size = size
        self._versions = versions
        self._processes = processes
        self._turn = cycle(range(2, versions + 2))
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def promote(self, number: int) -> dict[str, Any]:
        """Make a version live; the answer comes when the server serves it."""
        return self._post(f"versions/{number}/promote", {"force": True, "reason": "benchmark"})

    def promote_next(self) -> dict[str, Any]:
        """Make the version after the one promoted last live, in turn; what is live already is passed over."""
        return self.promote(next(number for number in self._turn if number != self.live))

    def roll_back(self) -> dict[str, Any]:
        return self._post("rollback", {"pin": False, "reason": "benchmark"})

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        self._make()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        environment = {
            "PERENNIAL_HOST": "127.0.0.1",
            "PERENNIAL_PORT": str(port),
            "PERENNIAL_DATA_DIR": str(self._folder),
            "PERENNIAL_ADMIN_KEY": self.key,
            "PERENNIAL_LOG_LEVEL": "WARNING",
        }
        command = [sys.executable, "-m", "app.cli.entry", "serve", "--processes", str(self._processes)]
        if self._processes == 1:
            command = [sys.executable, "-m", "app"]
        self._server = subprocess.Popen(command, env={**os.environ, **environment})
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("The server did not start.")
            time.sleep(0.1)
        self.promote_next()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(30)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = httpx.post(
            f"{self.url}/v1/models/stock/{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=30,
            trust_env=False,
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        assert not found["stragglers"], found
        self.live = found["live"]
        return found

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=1, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _make(self) -> None:
        database = Database(f"sqlite:///{self._folder / 'perennial.db'}")
        upgrade(database)
        registry, weights = ModelRegistry(database), WeightStore(self._folder / "weights")
        shape = ImageInput(size=self._size, channels=3)
        # As it stands for pictures of any size: without base weights small pictures get another, dearer stem.
        base = weights.add_base(to_bytes(torchvision.models.get_model(self._architecture, weights=None).state_dict()))
        choice = NetworkChoice(architecture=self._architecture, weights=base)
        first = registry.create(NewModel(name="stock", input=shape, network=choice, labels=LABELS), "benchmark").version
        network = build(NetworkSpec.from_json(first.spec), {}, base_weights_from(weights.read_base, download=False))
        for number in range(2, self._versions + 2):
            _move(network, number)
            _add(database, weights, first, number, network)
        database.close()


@torch.no_grad()
def _move(network: Network, number: int) -> None:
    for parameter in network.backbone.parameters():
        parameter.mul_(0.999)
    network.head.weight.zero_()
    network.head.bias.zero_()
    network.head.bias[number % len(LABELS)] = 10.0


def _add(database: Database, weights: WeightStore, first: Version, number: int, network: Network) -> None:
    version_id = str(uuid7())
    file = weights.write(version_id, ArtifactKind.WEIGHTS, to_bytes(network.state_dict()))
    with database.sessions.begin() as session:
        session.add(
            Version(
                id=version_id,
                model_id=first.model_id,
                number=number,
                parent_id=first.id,
                spec=first.spec,
                recipe=first.recipe,
                recipe_number=first.recipe_number,
                verdict=Verdict.PROMOTED,
                reason="by hand",
                metrics={},
                files=FileState.PRESENT,
                created_at=datetime.now(UTC),
            )
        )
        session.flush()
        session.add(Artifact(version_id=version_id, kind=file.kind, sha256=file.sha256, nbytes=file.nbytes))
