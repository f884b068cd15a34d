"""Who may call what: no route is open unless it is named here, and each other needs a key of its scope.

`authorize` is a dependency of the whole application and runs before a body is read. A route declares its scope
by `**needs(Scope.LABEL)`; one that declares none needs `admin`.
"""

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.api.deps import Wired
from app.api.key_cache import RANK, Caller, Scope
from app.errors import Forbidden, Unauthenticated

PUBLIC = frozenset(
    {
        "/",
        "/livez",
        "/readyz",
        "/v2/health/live",
        "/v2/health/ready",
        "/metrics",
        "/docs",
        "/docs/swagger-ui-bundle.js",
        "/docs/swagger-ui.css",
        "/openapi.json",
    }
)


def needs(scope: Scope, **more: Any) -> dict[str, Any]:
    """Declare the scope of a route: `@router.get(path, **needs(Scope.LABEL))`; `more` goes into its description."""
    return {"openapi_extra": {"x-scope": scope.value, **more}}


async def authorize(
    request: Request,
    parts: Wired,
    credentials: Annotated[
        HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False, description="A key: `prn_…`"))
    ],
) -> None:
    """Let the request pass, or raise Unauthenticated or Forbidden."""
    route = request.scope.get("route")
    if getattr(route, "path", None) in PUBLIC:
        return
    if not parts.auth:
        request.state.caller = Caller("anonymous", Scope.ADMIN)
        return
    caller = None if credentials is None else await parts.key_cache.caller(credentials.credentials)
    if caller is None:
        raise Unauthenticated(sent=credentials is not None)
    declared = (getattr(route, "openapi_extra", None) or {}).get("x-scope", Scope.ADMIN)
    if RANK[caller.scope] < RANK[Scope(declared)]:
        raise Forbidden(Scope(declared).value, caller.scope.value)
    request.state.caller = caller


def caller_of(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


Called = Annotated[Caller, Depends(caller_of)]
