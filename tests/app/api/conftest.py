"""A real server in this process: real SQLite file, real weights, real threads; only the socket is left out."""

import base64
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx
import pytest
import torch
import uvicorn
from PIL import Image
from uuid_utils import uuid7

from app.main import create_app
from app.networks.catalog import build
from app.networks.serialization import to_bytes
from app.networks.spec import NetworkSpec
from app.serving.listener import listen
from app.settings import Settings
from app.storage.claims import Outcome
from app.storage.database import Database
from app.storage.intake import Intake, NewSample
from app.storage.keys import KeyRing
from app.storage.migrate import upgrade
from app.storage.queue import SampleQueue
from app.storage.registry import ModelRegistry
from app.storage.states import ArtifactKind, LedgerRole, Verdict
from app.storage.tables import Version
from app.storage.weights import WeightStore

ADMIN_KEY = "an-admin-key-for-tests-0123456789abcdef"


class Service:
    """The application with its lifespan running, and a way to ask it from any thread."""

    def __init__(self, settings: Settings, portal: anyio.from_thread.BlockingPortal) -> None:
        self.settings = settings
        self.app = create_app(settings)
        self.parts = self.app.state.parts
        self._portal = portal
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app, raise_app_exceptions=False),
            base_url="http://127.0.0.1:8000",
            timeout=30,
        )

    def ask(self, method: str, path: str, key: str | None = ADMIN_KEY, **more: Any) -> httpx.Response:
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **more.pop("headers", {})}
        return self._portal.call(partial(self._client.request, method, path, headers=headers, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("POST", path, **more)

    def create(self, name: str = "iris", **more: Any) -> dict[str, Any]:
        body = {"name": name, "input": {"kind": "features", "size": 4}, "labels": ["a", "b", "c"], **more}
        answer = self.post("/v1/models", json=body)
        assert answer.status_code == 201, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def join(self, name: str, **batching: Any) -> None:
        """Change how the model's requests are joined, and wait until that holds here."""
        assert self.ask("PATCH", f"/v1/models/{name}", json={"batching": batching}).status_code == 200
        self.parts.refresher.refresh()

    def publish(
        self,
        name: str,
        winner: int,
        *,
        damage: Callable[[Path], None] | None = None,
        metrics: dict[str, Any] | None = None,
    ) -> Version:
        """Make a version live whose answer is always the label at `winner`, as a worker would."""
        database = Database(self.settings.database_address)
        try:
            return _publish(database, self.settings, name, winner, damage, metrics or {"accuracy": 0.5})
        finally:
            database.close()


def weight_file(settings: Settings, version_id: str) -> Path:
    (found,) = [path for path in settings.weights_dir.rglob("*") if path.is_file() and version_id in str(path)]
    return found


def _publish(
    database: Database,
    settings: Settings,
    name: str,
    winner: int,
    damage: Callable[[Path], None] | None,
    metrics: dict[str, Any],
) -> Version:
    registry, queue = ModelRegistry(database), SampleQueue(database)
    model = registry.model(name)
    live = registry.live(model.id)
    spec = NetworkSpec.from_json(live.version.spec)
    network = build(spec, {})
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
        network.head.bias[winner] = 10.0
    content = torch.rand(4, dtype=torch.float64).numpy().tobytes()
    label = registry.labels(model.id)[0].name
    Intake(database, 1000).put(model, [NewSample(content, label, None, "test", None, None)], "test")
    claim = queue.claim(model.id, worker="test", lease_seconds=30, limit=100)
    assert claim is not None
    version_id = str(uuid7())
    weights = WeightStore(settings.weights_dir).write(version_id, ArtifactKind.WEIGHTS, to_bytes(network.state_dict()))
    if damage is not None:
        damage(weight_file(settings, version_id))
    outcome = Outcome(
        version_id=version_id,
        spec=spec,
        verdict=Verdict.PROMOTED,
        reason="test",
        metrics=metrics,
        weights=weights,
        learner_state=None,
        held_out=frozenset(),
        tests=frozenset(revision.id for revision in claim.revisions if revision.side == LedgerRole.TEST),
        scores={},
    )
    return queue.commit(claim, outcome)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("migrated")
    database = Database(f"sqlite:///{folder / 'perennial.db'}")
    upgrade(database)
    KeyRing(database).ensure_admin(ADMIN_KEY)
    database.close()
    return folder


@pytest.fixture
def make_settings(tmp_path: Path, migrated: Path) -> Callable[..., Settings]:
    def make(**more: Any) -> Settings:
        folder = tmp_path / "data"
        if not folder.exists():
            shutil.copytree(migrated, folder)
        return Settings(**{"data_dir": folder, "poll_seconds": 0.02, **more})

    return make


@pytest.fixture(scope="session")
def portal() -> Iterator[anyio.from_thread.BlockingPortal]:
    with anyio.from_thread.start_blocking_portal("asyncio") as portal:
        yield portal


@pytest.fixture
def start(
    make_settings: Callable[..., Settings], portal: anyio.from_thread.BlockingPortal
) -> Iterator[Callable[..., Service]]:
    running = []

    def start(**more: Any) -> Service:
        service = Service(make_settings(**more), portal)
        lifespan = portal.wrap_async_context_manager(service.app.router.lifespan_context(service.app))
        lifespan.__enter__()
        running.append(lifespan)
        return service

    yield start
    for lifespan in reversed(running):
        lifespan.__exit__(None, None, None)


@pytest.fixture
def service(start: Callable[..., Service]) -> Service:
    return start()


@contextmanager
def listening(service: Service, portal: anyio.from_thread.BlockingPortal) -> Iterator[str]:
    """Put a real socket before a running service for the block: its `host:port`."""
    config = uvicorn.Config(
        service.app,
        http=service.app.protocol,  # type: ignore[arg-type]
        lifespan="off",
        ws="none",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listener:
        serving = portal.start_task_soon(server.serve, [listener])
        try:
            yield "{}:{}".format(*listener.getsockname())
        finally:
            server.should_exit = True
            serving.result(20)


@pytest.fixture
def address(service: Service, portal: anyio.from_thread.BlockingPortal) -> Iterator[str]:
    with listening(service, portal) as address:
        yield address


@pytest.fixture
def keys(service: Service) -> dict[str, str]:
    """A key of each scope."""
    database = Database(service.settings.database_address)
    ring = KeyRing(database)
    made = {scope: ring.create(scope, scope)[1] for scope in ("predict", "label", "admin")}
    database.close()
    return made


def png(width: int = 8, height: int = 8) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def picture() -> bytes:
    return png()


@pytest.fixture
def picture64(picture: bytes) -> str:
    return base64.b64encode(picture).decode()
