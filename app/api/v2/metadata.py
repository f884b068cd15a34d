"""What a client of the Open Inference Protocol asks before it infers: the server, its health, its models."""

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from app.api.body import described, parse_json
from app.api.deps import Parts, Wired
from app.api.key_cache import Scope
from app.api.openapi import errors
from app.api.paths import ModelPath, VersionPath
from app.api.security import needs
from app.api.v2.inputs import rows_of
from app.api.v2.message import read_bytes
from app.api.v2.outputs import NAMES
from app.api.v2.schemas import (
    IndexEntry,
    IndexRequest,
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    TensorMetadata,
)
from app.errors import FilesGone, NoLiveModel
from app.networks.spec import NetworkSpec
from app.serving.live_model import LiveModel
from app.storage.states import FileState
from app.storage.tables import Model

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

EXTENSIONS = ["binary_tensor_data", "classification", "model_repository_index", "perennial_prediction_id"]
PLATFORM = "perennial_torch"


@router.get("", summary="The server", response_model=ServerMetadata, responses=errors(), **needs(Scope.PREDICT))
async def server(request: Request) -> ServerMetadata:
    """Tell the server's version and the extensions of the protocol that it speaks."""
    return ServerMetadata(name="perennial", version=request.app.version, extensions=EXTENSIONS)


@router.get("/health/live", summary="Alive?", response_model=ServerLive)
async def alive() -> ServerLive:
    """Answer as long as the process can answer at all."""
    return ServerLive(live=True)


@router.get("/health/ready", summary="Ready?", response_model=ServerReady, responses={503: {"model": ServerReady}})
async def ready(parts: Wired, response: Response) -> ServerReady:
    """Be ready when every model answers, as /readyz is."""
    waiting = parts.refresher.readiness().waiting
    if waiting:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    return ServerReady(ready=not waiting)


@router.get(
    "/models/{model}",
    summary="A model's tensors",
    response_model=ModelMetadata,
    response_model_exclude_none=True,
    responses=errors(404),
    **needs(Scope.PREDICT),
)
def metadata(model: ModelPath, parts: Wired) -> ModelMetadata:
    """Tell what the live version takes and gives, and which versions are loaded."""
    row = parts.registry.model(model)
    live = parts.live_models.get(model)
    served = None if live is None else live.current
    number = parts.registry.live(row.id).version.number if served is None else served.predictor.version
    return _metadata(parts, row, number)


@router.get(
    "/models/{model}/versions/{version}",
    summary="A version's tensors",
    response_model=ModelMetadata,
    response_model_exclude_none=True,
    responses=errors(404),
    **needs(Scope.PREDICT),
)
def version_metadata(model: ModelPath, version: VersionPath, parts: Wired) -> ModelMetadata:
    """Tell what a version takes and gives; its labels are the columns of its `probabilities`."""
    return _metadata(parts, parts.registry.model(model), version)


@router.get(
    "/models/{model}/ready",
    summary="Is a model ready?",
    response_model=ModelReady,
    responses=errors(404),
    **needs(Scope.PREDICT),
)
def model_ready(model: ModelPath, parts: Wired) -> ModelReady:
    """Be ready when a live version answers here; 503 before."""
    row = parts.registry.model(model)
    live = parts.live_models.get(model)
    if live is None or live.current is None:
        raise NoLiveModel(row.name)
    return ModelReady(name=row.name, ready=True)


@router.get(
    "/models/{model}/versions/{version}/ready",
    summary="Is a version ready?",
    response_model=ModelReady,
    responses=errors(404, 410),
    **needs(Scope.PREDICT),
)
def version_ready(model: ModelPath, version: VersionPath, parts: Wired) -> ModelReady:
    """Be ready when the version is loaded or can be; 410 when its files were let go."""
    found = parts.registry.version(model, version)
    if version not in _loaded(parts.live_models.get(model)) and found.files not in (FileState.NONE, FileState.PRESENT):
        raise FilesGone(model, version)
    return ModelReady(name=model, ready=True)


@router.post(
    "/repository/index",
    summary="What is loaded",
    response_model=list[IndexEntry],
    responses=errors(400, 413, 415),
    **needs(Scope.PREDICT, **described(IndexRequest, required=False)),
)
async def index(request: Request, parts: Wired) -> list[IndexEntry]:
    """List each model's versions that this server has loaded, the live one first, and what it should have loaded."""
    body = await read_bytes(request)
    asked = parse_json(body, IndexRequest) if body else IndexRequest()
    found = await run_in_threadpool(_index, parts)
    return [one for one in found if one.state == "READY"] if asked.ready else found


def _loaded(live: LiveModel | None) -> list[int]:
    """Number the loaded versions, the live one first, then the newest."""
    served = None if live is None else live.current
    if live is None or served is None:
        return []
    first = served.predictor.version
    warm = {one.version for one in map(live.warm, live.warm_ids()) if one is not None}
    return [first, *sorted(warm - {first}, reverse=True)]


def _metadata(parts: Parts, row: Model, number: int) -> ModelMetadata:
    spec = NetworkSpec.from_json(parts.registry.version(row.name, number).spec)
    names = {label.id: label.name for label in parts.registry.labels(row.id)}
    labels = [names[label] for label in spec.labels]
    datatype, shape = next(iter(rows_of(spec).items()))
    probabilities, *others = NAMES
    return ModelMetadata(
        name=row.name,
        versions=[str(one) for one in _loaded(parts.live_models.get(row.name)) or [number]],
        platform=PLATFORM,
        inputs=[TensorMetadata(name=spec.input.kind, datatype=datatype, shape=[-1, *shape])],
        outputs=[
            TensorMetadata(name=probabilities, datatype="FP32", shape=[-1, len(labels)], labels=labels),
            *(TensorMetadata(name=other, datatype="BYTES", shape=[-1]) for other in others),
        ],
    )


def _index(parts: Parts) -> list[IndexEntry]:
    entries = []
    for model in parts.registry.models():
        live = parts.live_models.get(model.name)
        loaded = _loaded(live)
        assigned = parts.registry.live(model.id).version.number
        if assigned not in loaded:
            error = None if live is None else live.error
            state, reason = ("LOADING", "it is being loaded") if error is None else ("UNAVAILABLE", error)
            entries.append(IndexEntry(name=model.name, version=str(assigned), state=state, reason=reason))
        entries += [IndexEntry(name=model.name, version=str(one), state="READY", reason="") for one in loaded]
    return entries
