"""What a supervisor, a load balancer and Prometheus ask, and where a browser lands. No key is needed."""

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from app.api.deps import Wired
from app.api.schemas.health import LiveAnswer, ReadyAnswer

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Alive?", response_model=LiveAnswer)
async def livez() -> LiveAnswer:
    """Answer as long as the process can answer at all."""
    return LiveAnswer(status="alive")


@router.get("/readyz", summary="Ready?", response_model=ReadyAnswer, responses={503: {"model": ReadyAnswer}})
def readyz(parts: Wired, response: Response) -> ReadyAnswer:
    """Be ready when every model's live version is loaded, warm and has given its golden answer.

    `degraded` is ready too: those models answer by an earlier version, since their live one could not be loaded. Of
    several serving processes that share the port, the one that answers speaks for all.
    """
    found = parts.host_readiness.found()
    if found.waiting:
        response.status_code = 503
        response.headers["Retry-After"] = "1"
    status = "not ready" if found.waiting else "degraded" if found.degraded else "ready"
    return ReadyAnswer(status=status, waiting=list(found.waiting), degraded=list(found.degraded))


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
def metrics(parts: Wired) -> Response:
    """Give the figures in Prometheus' text form; of several serving processes that share the port, their sum."""
    return Response(parts.host_metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """Send a browser to the calls."""
    return RedirectResponse("docs")
