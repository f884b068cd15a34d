"""No route is open unless it is named so."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.api.key_cache import RANK, Scope
from app.api.security import PUBLIC
from app.errors import InvalidSetting
from app.main import create_app
from app.storage.database import Database
from app.storage.keys import KeyRing

FILL = {
    "model": "iris",
    "family": "animals",
    "version": "1",
    "sample": "019aa5e2-7c1e-7b5a-9d1c-0a1b2c3d4e5f",
    "prediction_id": "019aa5e2-7c1e-7b5a-9d1c-0a1b2c3d4e5f",
}


def routes(app: FastAPI) -> Iterator[APIRoute]:
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None)
        if inner is not None:
            waiting += inner.routes
        else:
            assert isinstance(route, APIRoute), f"{route} is no route that the guard stands before"
            yield route


def test_every_route_that_is_not_public_needs_a_key(service: Any) -> None:
    walked = 0
    for route in routes(service.app):
        for method in route.methods or ():
            if route.path in PUBLIC:
                continue
            walked += 1
            for key in (None, "prn_not_a_key"):
                answer = service.ask(method, route.path.format(**FILL), key=key)
                assert answer.status_code == 401, (method, route.path)
                assert answer.headers["www-authenticate"] == "Bearer"
                own = route.path.startswith("/v2")  # a protocol with a form of its own
                assert answer.headers["content-type"] == ("application/json" if own else "application/problem+json")
                assert not own or answer.json().keys() == {"error"}
    assert walked >= 20


def test_every_route_needs_the_scope_it_declares(service: Any, keys: dict[str, str]) -> None:
    service.create()
    for route in routes(service.app):
        if route.path in PUBLIC:
            continue
        declared = (route.openapi_extra or {}).get("x-scope")
        assert declared is not None, f"{route.path} declares no scope"
        for scope in Scope:
            if RANK[scope] < RANK[Scope(declared)]:
                for method in route.methods or ():
                    answer = service.ask(method, route.path.format(**FILL), key=keys[scope])
                    assert answer.status_code == 403, (method, route.path, scope)
                    assert declared in answer.json()["detail"]


def test_public_routes_need_none(service: Any) -> None:
    for path in sorted(PUBLIC):
        assert service.get(path, key=None).status_code in (200, 307), path


def test_a_revoked_key_is_refused_within_a_moment(service: Any) -> None:
    database = Database(service.settings.database_address)
    ring = KeyRing(database)
    key, secret = ring.create("short", "predict")
    assert service.get("/v1/models", key=secret).status_code == 200
    ring.revoke(key.id)
    database.close()
    service.parts.key_cache._clock = lambda: float("inf")

    assert service.get("/v1/models", key=secret).status_code == 401


def test_without_auth_everyone_is_let_in_on_loopback_only(start: Any, make_settings: Any) -> None:
    service = start(auth="off")

    assert service.get("/v1/models", key=None).status_code == 200
    with pytest.raises(InvalidSetting, match="loopback"):
        create_app(make_settings(auth="off", host="0.0.0.0"))


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Host": "["}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
)
def test_a_foreign_name_gets_nothing_from_a_server_on_loopback(service: Any, headers: dict[str, str]) -> None:
    assert service.get("/livez", key=None, headers=headers).status_code == 403


def test_the_page_of_calls_needs_nothing_from_elsewhere(service: Any) -> None:
    page = service.get("/docs", key=None).text

    assert "swagger-ui-bundle.js" in page
    assert "http://" not in page
    assert "https://" not in page
    assert len(service.get("/docs/swagger-ui-bundle.js", key=None).content) > 100_000


def test_answers_are_neither_kept_nor_guessed_at(service: Any) -> None:
    headers = service.get("/v1/models").headers

    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers
