"""Whatever comes in, nothing breaks: seeded random bodies and odd headers never make an answer of 500 or more."""

import json
import random
from typing import Any

import pytest

NAMES = ("id", "label", "image", "features", "text", "prediction_id", "source", "why", "samples", "inputs", "top_k")
MORE = ("recipe", "kind", "name", "input", "labels", "network", "to", "pin", "reason", "force", "optimizer", "memory")
CALLS = (
    ("POST", "/v1/models/iris/predict"),
    ("POST", "/v1/models/iris/samples"),
    ("POST", "/v1/models"),
    ("PATCH", "/v1/models/iris"),
    ("POST", "/v1/models/iris/rollback"),
    ("POST", "/v1/models/iris/versions/1/promote"),
    ("POST", "/v1/models/iris/learning/pause"),
)
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n'
    b'--x\r\nContent-Disposition: form-data; name="label"\r\n\r\n\xff\xfe\r\n--x--\r\n'
)


def anything(draw: random.Random, depth: int = 0) -> Any:
    plain = (None, True, -1, 10**30, 1e308, "", "a\0b", "x" * 300, "a", [1.0, 2.0, 3.0, 4.0], draw.random())
    kind = draw.randrange(10)
    if depth > 2 or kind < 6:
        return draw.choice(plain)
    if kind < 8:
        return [anything(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice(NAMES + MORE): anything(draw, depth + 1) for _ in range(draw.randrange(5))}


def body_for(path: str, draw: random.Random) -> Any:
    """A body that is right but for one part, or anything at all."""
    if draw.random() < 0.4:
        return anything(draw)
    if path.endswith("predict"):
        return {"inputs": [{"features": [1, 2, 3, 4]}, anything(draw)], "top_k": anything(draw)}
    if path.endswith("samples"):
        return {"samples": [{"label": "a", "features": [1, 2, 3, 4], draw.choice(NAMES): anything(draw)}]}
    return {draw.choice(NAMES + MORE): anything(draw)}


@pytest.mark.parametrize("seed", range(4))
def test_random_bodies_never_break_the_server(service: Any, seed: int) -> None:
    service.create()
    draw = random.Random(seed)

    for _ in range(60):
        method, path = draw.choice(CALLS)
        body = body_for(path, draw)
        kind = draw.choice(["application/json"] * 9 + ["application/x-ndjson"])
        answer = service.ask(method, path, content=json.dumps(body), headers={"Content-Type": kind})
        assert answer.status_code < 500, (method, path, body, answer.text)


@pytest.mark.parametrize("path", ["predict", "samples"])
@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary=x",
        "multipart/form-data; boundary=x; charset=zlib",
        "multipart/form-data; boundary=x; charset=utf-16",
        "multipart/form-data; boundary=" + "x" * 300,
        'multipart/form-data; boundary="',
        "application/json; charset=utf-16",
        "application/x-ndjson",
        "image/png; x",
        ";",
    ],
)
def test_odd_media_types_never_break_the_server(service: Any, path: str, kind: str) -> None:
    service.create()

    answer = service.post(f"/v1/models/iris/{path}", content=FORM, headers={"Content-Type": kind})

    assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    "headers", [{"Content-Length": "abc"}, {"Range": "bytes=0-"}, {"Authorization": b"Bearer \xfc"}, {"Host": ""}]
)
def test_odd_headers_never_break_the_server(service: Any, headers: dict[str, Any]) -> None:
    assert service.get("/v1/models", key=None, headers=headers).status_code == 401
