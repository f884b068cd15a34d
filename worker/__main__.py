"""`python -m worker`: the process that learns. Everything it is made of is put together here and nowhere else."""

import importlib
import signal
import sys
import threading
import time
from types import FrameType

import torch
from uuid_utils import uuid7

from app.device import choose_device
from app.errors import PerennialError
from app.loading import VersionLoader
from app.log import configure, get_logger
from app.networks.pretrained import base_weights_from
from app.settings import Settings
from app.storage.database import Database
from app.storage.features import FeatureStore
from app.storage.killpoint import KillPoint
from app.storage.line import LineReader
from app.storage.migrate import require_current
from app.storage.predictions import PredictionLog
from app.storage.queue import SampleQueue
from app.storage.registry import ModelRegistry
from app.storage.retention import Retention
from app.storage.weights import WeightStore
from app.traffic import Traffic
from worker.attempt import Stores
from worker.courtesy import Courtesy
from worker.loop import Loop, Pace
from worker.priority import step_back
from worker.update import Updater

log = get_logger(__name__)

WAIT_FOR_DATABASE_SECONDS = 60.0
KEPT_BACKBONES = 2  # stay loaded between updates


def main() -> int:
    """Run the loop until SIGTERM or Ctrl-C; the exit code tells whether it ended well."""
    settings = Settings()
    configure(settings.log_level, settings.log_format)
    stop = _stop_on_signals()
    step_back(settings.worker_scheduling, settings.worker_nice)
    torch.set_num_threads(settings.worker_threads)
    try:
        device = choose_device(settings.device, "PERENNIAL_DEVICE")
        database = Database(settings.database_address)
        _wait_until_current(database, stop)
        loop = compose(settings, database, device, stop)
    except PerennialError as error:
        log.critical("worker cannot start", error=str(error))
        return 1
    # Whatever optimizer comes first imports it, for some seconds: better before the first label than after.
    importlib.import_module("torch._dynamo")
    log.info(
        "worker started", device=str(device), threads=settings.worker_threads, scheduling=settings.worker_scheduling
    )
    try:
        loop.run()
    finally:
        database.close()
    log.info("worker stopped")
    return 0


def compose(settings: Settings, database: Database, device: torch.device, stop: threading.Event) -> Loop:
    """Put the loop and all below it together."""
    kill_point = KillPoint(settings.kill_at)
    traffic = Traffic(settings.data_dir) if device.type == "cpu" else None
    courtesy = Courtesy(traffic, most=settings.worker_rest)
    weights = WeightStore(settings.weights_dir, kill_point, courtesy.rest)
    stores = Stores(
        SampleQueue(database, kill_point),
        ModelRegistry(database),
        LineReader(database),
        weights,
        FeatureStore(database),
    )
    base_weights = base_weights_from(weights.read_base, download=settings.weights_download)
    loader = VersionLoader(
        stores.registry, weights, settings.builders, base_weights, keep=KEPT_BACKBONES, pause=courtesy.rest
    )
    updater = Updater(
        stores,
        loader,
        device=device,
        lease_seconds=settings.lease_seconds,
        stopping=stop.is_set,
        kill_point=kill_point,
        courtesy=courtesy,
    )
    retention = Retention(database, weights)
    predictions = PredictionLog(database)

    def keep_house() -> None:
        retention.collect()
        predictions.prune(settings.prediction_days, settings.prediction_bytes)

    pace = Pace(settings.poll_seconds, settings.lease_seconds, settings.claim_limit)
    return Loop(stores.queue, updater.perform, worker=str(uuid7()), stop=stop, keep_house=keep_house, pace=pace)


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)  # the second one ends the process at once

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def _wait_until_current(database: Database, stop: threading.Event) -> None:
    """Wait for a database that is still starting or being migrated; raises its last error when the time is over."""
    deadline = time.monotonic() + WAIT_FOR_DATABASE_SECONDS
    told = ""
    while True:
        try:
            require_current(database)
        except Exception as error:
            if time.monotonic() > deadline or stop.is_set():
                raise
            if str(error) != told:
                told = str(error)
                log.info("waiting for the database", error=told, at_most_seconds=WAIT_FOR_DATABASE_SECONDS)
            stop.wait(1.0)
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
