"""The server's composition root: every part is made here, and started and stopped in order.

`create_app` is called by `run`, by the command line and by tests; it makes no thread and opens no socket.
"""

import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch
import uvicorn
from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool

from app.api import deps, envelope, error_handlers, openapi
from app.api.application import Application
from app.api.express import Express
from app.api.host_metrics import HostMetrics
from app.api.host_readiness import HostReadiness
from app.api.inflation import Inflation
from app.api.key_cache import KeyCache
from app.api.learning_metrics import LearningMetrics
from app.api.limits import STREAMS, BodyLimits, Streams
from app.api.metrics import Metrics
from app.api.routers import ROUTERS
from app.api.security import authorize
from app.api.sharing_server import SharingServer
from app.device import choose_device
from app.errors import InvalidSetting, PerennialError
from app.loading import VersionLoader
from app.log import configure, get_logger
from app.networks.catalog import build, default_architecture
from app.networks.pretrained import base_weights_from
from app.serving.aside import Aside
from app.serving.batcher import Batcher
from app.serving.listener import listen
from app.serving.live_model import LiveModels
from app.serving.loader import PredictorLoader
from app.serving.pace import Pace
from app.serving.pinned_versions import PinnedVersions
from app.serving.prediction_writer import PredictionWriter
from app.serving.refresher import Refresher
from app.serving.siblings import Place, Siblings
from app.serving.tidying import Tidying
from app.serving.timer import Timer
from app.serving.ways import Options
from app.serving.width import decoding_threads, inference_threads, widening
from app.settings import Settings
from app.storage.database import Database
from app.storage.events import EventLog
from app.storage.intake import Intake
from app.storage.keys import KeyRing
from app.storage.killpoint import KillPoint
from app.storage.learning_figures import LearningFigures
from app.storage.migrate import require_current
from app.storage.predictions import PredictionLog
from app.storage.queue import SampleQueue
from app.storage.receipts import Receipts
from app.storage.registry import ModelRegistry
from app.storage.servers import ServerRoster
from app.storage.steering import Steering
from app.storage.weights import WeightStore
from app.traffic import Traffic

log = get_logger(__name__)

REAP_SECONDS = 5.0
TIDY_SECONDS = 1.0
PINNED_VERSIONS = 3
WRITTEN_SECONDS = 5.0  # after an answer, even another process has written it, and be it by a scribe yet to start
ASIDE_THREADS = 2


def create_app(settings: Settings, place: Place | None = None) -> Application:
    """Compose the server. Raises InvalidSetting, or Unavailable where the database is not up to date.

    `place` is its own among the serving processes that share its port; None where it has the port to itself.
    """
    _require_safe_address(settings)
    torch.set_num_threads(settings.server_threads)
    device = choose_device(settings.server_device, "PERENNIAL_SERVER_DEVICE")
    passes = inference_threads(settings.server_threads, settings.processes, device)
    kill_point = KillPoint(settings.kill_at)
    database = _open_database(settings)
    registry = ModelRegistry(database)
    roster = ServerRoster(database)
    predictions = PredictionLog(database, patience_seconds=WRITTEN_SECONDS if place else 0.0)
    weights = WeightStore(settings.weights_dir, kill_point)
    base_weights = base_weights_from(weights.read_base, download=settings.weights_download)
    metrics = Metrics()
    traffic = Traffic(settings.data_dir)
    batcher = Batcher(
        threads=passes,
        decoding_threads=decoding_threads(settings.processes),
        request_seconds=settings.request_seconds,
        inflight_limit=settings.inflight_limit,
        observe=metrics.batch,
        tell=traffic.tell,
        widen=widening(settings.server_threads, passes * settings.server_threads, device),
    )
    aside = Aside(threads=ASIDE_THREADS, request_seconds=settings.request_seconds)
    pace = Pace(lambda: batcher.inflight > 0)
    versions = VersionLoader(
        registry,
        weights,
        settings.builders,
        base_weights,
        device=device,
        buffers=settings.warm_versions + 2,  # the warm ones, the live one and the one being loaded
        pause=pace,
    )
    options = Options(precision=settings.server_precision, packing=settings.server_packing)
    loader = PredictorLoader(registry, versions, device=device, options=options, pause=pace)
    live_models = LiveModels(warm_versions=settings.warm_versions, kill_point=kill_point)
    figures = LearningFigures(database)
    refresher = Refresher(
        registry,
        roster,
        loader,
        live_models,
        poll_seconds=settings.poll_seconds,
        configure=batcher.configure,
        label_ages=figures.label_ages,
        swapped=metrics.swapped,
    )
    writer = PredictionWriter.of(settings)
    receipts = Receipts(database)
    siblings = Siblings(place)
    host_readiness = HostReadiness(refresher, siblings)
    host_metrics = HostMetrics(
        metrics,
        siblings,
        gather=lambda: _gather(metrics, live_models, batcher, writer),
        shared=LearningMetrics(registry, receipts, figures).families,
    )
    reaper = Timer("reaper", REAP_SECONDS, SampleQueue(database).expire)
    tidying = Tidying(lambda: batcher.inflight > 0 or traffic.recent)
    tidier = Timer("tidier", TIDY_SECONDS, tidying.look)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tidying.start()
        tidier.start()
        refresher.start()
        reaper.start()
        batcher.start()
        siblings.start({"look": refresher.wake, "figures": host_metrics.tell, "ready": host_readiness.tell})
        try:
            yield
        finally:
            # Answers still come to the last.
            for part in (siblings, tidier, reaper, refresher, batcher, aside, writer):
                await run_in_threadpool(part.stop)
            tidying.stop()
            await run_in_threadpool(database.close)

    app = Application(
        title="Perennial",
        summary="The model server that keeps learning.",
        description="Ask a model, send labels, watch new versions go live, roll back. Errors are RFC 9457 problems.",
        version="0.1.0",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # else it looks for a provider at each request
        lifespan=lifespan,
        dependencies=[Depends(authorize)],
    )
    parts = deps.Parts(
        registry=registry,
        steering=Steering(database),
        intake=Intake(database, settings.queue_limit),
        receipts=receipts,
        predictions=predictions,
        events=EventLog(database),
        key_cache=KeyCache(KeyRing(database)),
        roster=roster,
        live_models=live_models,
        pinned_versions=PinnedVersions(registry, loader, live_models, capacity=PINNED_VERSIONS),
        batcher=batcher,
        aside=aside,
        refresher=refresher,
        writer=writer,
        metrics=metrics,
        host_metrics=host_metrics,
        host_readiness=host_readiness,
        siblings=siblings,
        try_build=lambda spec: build(spec, settings.builders, base_weights),
        default_architecture=default_architecture,
        streams=Streams(STREAMS),
        auth=settings.auth == "on",
    )
    _equip(app, parts, settings)
    return app


def _require_safe_address(settings: Settings) -> None:
    if settings.auth == "off" and not settings.on_loopback:
        raise InvalidSetting(
            f"auth=off lets everyone in, and host {settings.host!r} is not loopback. "
            "Leave auth on, or set PERENNIAL_HOST=127.0.0.1."
        )


def _open_database(settings: Settings) -> Database:
    database = Database(settings.database_address)
    try:
        require_current(database)
    except PerennialError:
        database.close()
        raise
    return database


def _gather(metrics: Metrics, live_models: LiveModels, batcher: Batcher, writer: PredictionWriter) -> None:
    """Set the figures that change by themselves."""
    for live in live_models.all():
        served = live.current
        if served is not None:
            metrics.serve(live.name, version=served.predictor.version, epoch=served.epoch, swaps=live.swaps)
    metrics.process(inflight=batcher.inflight, unwritten=writer.depth, dropped=writer.dropped)


def _equip(app: Application, parts: deps.Parts, settings: Settings) -> None:
    """Give the application its routes, and what is around them."""
    deps.install(app.state, parts)
    for router in ROUTERS:
        app.include_router(router)
    openapi.install(app)
    error_handlers.install(app)
    app.add_middleware(BodyLimits, request_seconds=settings.request_seconds)
    app.add_middleware(Inflation)  # around the limits, which count what comes out of it
    hosts = {*envelope.LOOPBACK, settings.host} if settings.on_loopback else None
    app.add_middleware(envelope.Envelope, hosts=hosts)
    app.express = Express(parts, hosts=hosts, request_seconds=settings.request_seconds)


def run(settings: Settings, listener: socket.socket | None = None, place: Place | None = None) -> int:
    """Serve until a signal; give the exit code. Port 0 picks a free one, which the log names.

    A `listener` that is given is used instead of the settings' address: a supervisor keeps it open over restarts. It
    is shared where `place` is given.
    """
    configure(settings.log_level, settings.log_format)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        app = create_app(settings, place)
        made = _first_key(settings)
    except PerennialError as error:
        sys.stderr.write(f"perennial: {error}\n")
        return 2
    if made is not None:
        sys.stderr.write(f"The first admin key, shown once: {made}\n")
    try:
        listener = listener or listen(settings.host, settings.port)
    except PerennialError as error:
        sys.stderr.write(f"perennial: {error}\n")
        return 2
    config = uvicorn.Config(
        app,
        http=app.protocol,  # type: ignore[arg-type]  # it is only called
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=30,
    )
    log.info("listening", address=_address(listener))
    deps.parts_in(app.state).writer.start()
    server = uvicorn.Server(config) if place is None else _sharing(config, place, deps.parts_in(app.state))
    # Once it has ended in order, uvicorn raises the signal again for whoever had a handler before: that is us.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    with listener:
        server.run(sockets=[listener])
    return 0 if server.started else 3


def _sharing(config: uvicorn.Config, place: Place, parts: deps.Parts) -> SharingServer:
    def take() -> None:
        parts.siblings.taking = True

    return SharingServer(config, place.shares(), ready=parts.refresher.wait_until_ready, taking=take)


def _first_key(settings: Settings) -> str | None:
    database = Database(settings.database_address)
    try:
        return KeyRing(database).ensure_admin(settings.admin_key)
    finally:
        database.close()


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
