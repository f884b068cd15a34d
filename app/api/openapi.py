"""The description of the API: forms that routes read by themselves, problems, and the page that shows it.

Swagger UI's files are served by us, so that the page works on a machine without a network.
"""

from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.error_handlers import PROBLEM_JSON
from app.api.schemas.models import ModelChange, ModelRequest, ReasonRequest, RunRequest
from app.api.schemas.predict import PredictRequest
from app.api.schemas.samples import LabelChange, SampleItem, SamplesRequest
from app.api.schemas.versions import PromoteRequest, RollbackRequest
from app.api.schemas.wire import Problem
from app.api.security import PUBLIC
from app.api.v2.schemas import IndexRequest, InferError, InferRequest

FORMS: tuple[type[BaseModel], ...] = (
    IndexRequest,
    InferError,
    InferRequest,
    LabelChange,
    ModelRequest,
    PredictRequest,
    Problem,
    PromoteRequest,
    ReasonRequest,
    ModelChange,
    RollbackRequest,
    RunRequest,
    SampleItem,
    SamplesRequest,
)

_WHEN = {
    400: "The body cannot be read: no JSON, no UTF-8, or nested too deep.",
    401: "No key, or one that is not valid.",
    403: "The key's scope does not reach this call.",
    404: "What was named does not exist.",
    409: "The state forbids it now.",
    410: "It existed and was let go.",
    413: "The body, an item or a line is too large.",
    415: "The body's media type is not one of those this call takes.",
    422: "The input is wrong, and why.",
    429: "A queue is full; `Retry-After` says when to come again.",
    503: "Not ready; `Retry-After` says when to come again.",
    504: "No answer within the deadline.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the problems a route may answer with; 401, 403 and 503 come with every route that needs a key."""
    return {
        status: {
            "description": _WHEN[status],
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({*statuses, 401, 403, 422, 503})
    }


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the same for a route under /v2, whose protocol has a form of its own."""
    form = {"application/json": {"schema": {"$ref": "#/components/schemas/InferError"}}}
    return {status: {**told, "content": form} for status, told in problems(*statuses).items()}


def install(app: FastAPI) -> None:
    """Describe the application and show the description at /docs."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
                separate_input_output_schemas=False,
            )
            _, forms = models_json_schema(
                [(form, "validation") for form in FORMS], ref_template="#/components/schemas/{model}"
            )
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            for name, form in forms["$defs"].items():
                schemas.setdefault(name, form)
            for path, calls in schema["paths"].items():
                if path in PUBLIC:
                    for call in calls.values():
                        call.pop("security", None)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        page = get_swagger_ui_html(
            openapi_url=f"{root}/openapi.json",
            title="Perennial: the calls",
            swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/swagger-ui.css",
            swagger_favicon_url="data:,",
        )
        return HTMLResponse(page.body)

    @app.get("/docs/swagger-ui-bundle.js", include_in_schema=False)
    def script() -> Response:
        return _asset("swagger-ui-bundle.js", "text/javascript; charset=utf-8")

    @app.get("/docs/swagger-ui.css", include_in_schema=False)
    def style() -> Response:
        return _asset("swagger-ui.css", "text/css; charset=utf-8")

    @app.get("/openapi.json", include_in_schema=False)
    def description() -> dict[str, Any]:
        return openapi()


def _asset(name: str, kind: str) -> Response:
    data = files("fastapi_offline").joinpath("static", name).read_bytes()
    return Response(data, media_type=kind, headers={"Cache-Control": "public, max-age=86400"})
