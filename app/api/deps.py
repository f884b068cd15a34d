"""What the routes stand on; the only reader of `app.state`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from app.api.host_metrics import HostMetrics
from app.api.host_readiness import HostReadiness
from app.api.key_cache import KeyCache
from app.api.limits import Streams
from app.api.metrics import Metrics
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput, ImageInput
from app.serving.aside import Aside
from app.serving.batcher import Batcher
from app.serving.live_model import LiveModels
from app.serving.pinned_versions import PinnedVersions
from app.serving.prediction_writer import PredictionWriter
from app.serving.refresher import Refresher
from app.serving.siblings import Siblings
from app.storage.events import EventLog
from app.storage.intake import Intake
from app.storage.predictions import PredictionLog
from app.storage.receipts import Receipts
from app.storage.registry import ModelRegistry
from app.storage.servers import ServerRoster
from app.storage.steering import Steering


@dataclass(frozen=True)
class Parts:
    """All that the composition root hands to the routes."""

    registry: ModelRegistry
    steering: Steering
    intake: Intake
    receipts: Receipts
    predictions: PredictionLog
    events: EventLog
    key_cache: KeyCache
    roster: ServerRoster
    live_models: LiveModels
    pinned_versions: PinnedVersions
    batcher: Batcher
    aside: Aside
    refresher: Refresher
    writer: PredictionWriter
    metrics: Metrics
    host_metrics: HostMetrics
    host_readiness: HostReadiness
    siblings: Siblings
    try_build: Callable[[NetworkSpec], object]
    default_architecture: Callable[[ImageInput | FeaturesInput], str]
    streams: Streams
    auth: bool


def install(app_state: object, parts: Parts) -> None:
    """Put the parts where `parts_of` finds them."""
    app_state.parts = parts  # type: ignore[attr-defined]


def parts_in(app_state: object) -> Parts:
    parts: Parts = app_state.parts  # type: ignore[attr-defined]
    return parts


def parts_of(request: Request) -> Parts:
    return parts_in(request.app.state)


Wired = Annotated[Parts, Depends(parts_of)]
