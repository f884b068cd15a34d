"""Which loaded version answers a request: the live one, or the one that it names."""

from starlette.concurrency import run_in_threadpool

from app.api.deps import Parts
from app.errors import NoLiveModel
from app.serving.predictor import Predictor


async def predictor_of(parts: Parts, model: str, version: int | None) -> Predictor:
    """Give the version, loaded if need be; UnknownModel, UnknownVersion and what a load raises when there is none."""
    live = parts.live_models.get(model)
    if version is not None:
        warm = None if live is None else live.warm_number(version)
        if warm is not None:
            return warm
        return await parts.aside.call(lambda: parts.pinned_versions.get(model, version))
    if live is None:
        await run_in_threadpool(parts.registry.model, model)  # UnknownModel, or it is only not here yet
        raise NoLiveModel(model)
    return live.predictor()
