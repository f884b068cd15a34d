"""Bad input is one clear 4xx, nothing is stored, and the server goes on."""

import json
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

PREDICT = "/v1/models/iris/predict"
SAMPLES = "/v1/models/iris/samples"
GOOD = {"features": [1.0, 2.0, 3.0, 4.0]}


def raw(text: str | bytes, kind: str = "application/json") -> dict[str, Any]:
    return {"content": text, "headers": {"Content-Type": kind}}


def bomb() -> bytes:
    """A PNG of 30,000 × 30,000 pixels in a few kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


NO_BODIES: list[tuple[str, dict[str, Any], int]] = [
    ("not JSON", raw("{"), 400),
    ("nothing", raw(""), 400),
    ("not UTF-8", raw(b'{"inputs": [{"text": "\xff"}]}'), 400),
    ("deep JSON", raw("[" * 100_000), 400),
    ("deep but closed", raw('{"inputs":' + "[" * 40 + "]" * 40 + "}"), 400),
    ("a lone surrogate", raw('{"inputs": [{"text": "\\ud800"}]}'), 400),
    ("another shape", raw("[1, 2]"), 422),
    ("no type", {"content": b"abc"}, 415),
    ("another type", raw("a: b", "application/yaml"), 415),
    ("a form without a boundary", raw("abc", "multipart/form-data"), 400),
    ("a form that is none", raw("abc", "multipart/form-data; boundary=x"), 400),
]


@pytest.mark.parametrize("path", [PREDICT, SAMPLES])
@pytest.mark.parametrize(("what", "sent", "status"), NO_BODIES, ids=[one[0] for one in NO_BODIES])
def test_a_body_that_cannot_be_read_is_refused(
    service: Any, path: str, what: str, sent: dict[str, Any], status: int
) -> None:
    service.create()

    answer = service.post(path, **sent)

    assert answer.status_code == status, answer.text
    check_problem(answer)
    nothing_is_stored(service)


INPUTS: list[tuple[str, Any]] = [
    ("unknown field", {"inputs": [GOOD], "extra": 1}),
    ("unknown field of an input", {"inputs": [{**GOOD, "url": "http://169.254.169.254/"}]}),
    ("no inputs", {"inputs": []}),
    ("too many inputs", {"inputs": [GOOD] * 257}),
    ("nothing in an input", {"inputs": [GOOD, {}]}),
    ("two things in an input", {"inputs": [{**GOOD, "image": "AAAA"}]}),
    ("another kind", {"inputs": [GOOD, {"image": "AAAA"}]}),
    ("text", {"inputs": [{"text": "hello"}]}),
    ("wrong size", {"inputs": [{"features": [1.0]}]}),
    ("empty features", {"inputs": [{"features": []}]}),
    ("text for a number", {"inputs": [{"features": ["1", 2, 3, 4]}]}),
    ("true for a number", {"inputs": [{"features": [True, 2, 3, 4]}]}),
    ("null for a number", {"inputs": [{"features": [None, 2, 3, 4]}]}),
    ("nested features", {"inputs": [{"features": [[1, 2, 3, 4]]}]}),
    ("too large for the network", {"inputs": [{"features": [1e300, 2, 3, 4]}]}),
    ("top_k of nothing", {"inputs": [GOOD], "top_k": 0}),
    ("top_k as text", {"inputs": [GOOD], "top_k": "5"}),
    ("not base64", {"inputs": [{"image": "%%%"}]}),
]


@pytest.mark.parametrize(("what", "body"), INPUTS, ids=[one[0] for one in INPUTS])
def test_inputs_of_the_wrong_shape_are_refused(service: Any, what: str, body: Any) -> None:
    service.create()

    answer = service.post(PREDICT, json=body)

    assert answer.status_code == 422, answer.text
    check_problem(answer)
    assert service.parts.writer.depth == 0


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(service: Any, number: str) -> None:
    service.create()

    answer = service.post(PREDICT, **raw(f'{{"inputs": [{{"features": [{number}, 2, 3, 4]}}]}}'))
    sample = service.post(SAMPLES, **raw(f'{{"samples": [{{"label": "a", "features": [{number}, 2, 3, 4]}}]}}'))

    assert answer.status_code in (400, 422)
    assert sample.status_code in (400, 422)
    nothing_is_stored(service)


def test_an_input_of_another_kind_is_named_by_its_place(service: Any) -> None:
    service.create()

    answer = service.post(PREDICT, json={"inputs": [GOOD, {"image": "AAAA"}]})

    assert answer.json()["code"] == "wrong_kind"
    assert answer.json()["detail"].startswith("inputs[1]")


def test_what_came_is_never_sent_back(service: Any) -> None:
    service.create()

    answer = service.post(PREDICT, json={"inputs": [{"features": ["secret-of-mine", 2, 3, 4]}]})

    assert "secret-of-mine" not in answer.text
    assert answer.json()["errors"][0]["loc"] == ["body", "inputs", "0", "features", "0"]


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
@pytest.mark.parametrize("what", ["bomb", "truncated", "empty", "text", "gif"])
def test_pictures_that_cannot_be_used_are_refused(service: Any, picture: bytes, what: str) -> None:
    service.create("pets", input={"kind": "image", "size": 16, "channels": 3}, labels=["cat", "dog"])
    content = {
        "bomb": bomb(),
        "truncated": picture[:-20],
        "empty": b"",
        "text": b"hello",
        "gif": b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
    }[what]

    body = service.post("/v1/models/pets/predict", **raw(content, "image/png"))
    form = service.post("/v1/models/pets/samples", files={"file": ("a.png", content)}, data={"label": "cat"})

    assert body.status_code == 422, body.text
    assert form.status_code == 422, form.text
    check_problem(body)
    nothing_is_stored(service, "pets")


async def zeros(total: int, sent: list[int]) -> AsyncIterator[bytes]:
    for _ in range(total >> 16):
        sent.append(1 << 16)
        yield b"0" * (1 << 16)


@pytest.mark.parametrize("path", [PREDICT, SAMPLES, "/v1/models", "/v1/models/iris/rollback"])
def test_a_body_of_100_megabytes_is_cut_off_early(service: Any, path: str) -> None:
    service.create()
    sent: list[int] = []

    answer = service.post(path, content=zeros(100 << 20, sent), headers={"Content-Type": "application/json"})

    assert answer.status_code == 413, answer.text
    assert sum(sent) < 34 << 20
    check_problem(answer)
    nothing_is_stored(service)


def test_a_body_that_says_it_is_too_large_is_not_read_at_all(service: Any) -> None:
    service.create()

    answer = service.post(
        PREDICT, content=b"{}", headers={"Content-Type": "application/json", "Content-Length": "99999999"}
    )

    assert answer.status_code == 413


@pytest.mark.parametrize(
    "path", [PREDICT, "/v1/models", "/v1/models/iris/rollback", "/v1/models/iris/versions/1/promote"]
)
def test_nothing_is_read_of_a_body_without_end_where_none_is_taken(service: Any, path: str) -> None:
    service.create()
    sent: list[int] = []

    answer = service.post(path, content=zeros(40 << 20, sent), headers={"Content-Type": "application/x-ndjson"})

    assert answer.status_code == 415, answer.text
    assert sum(sent) <= 1 << 20
    check_problem(answer)


def test_a_call_that_needs_no_body_takes_none_of_any_other_type(service: Any) -> None:
    service.create()

    empty = service.post("/v1/models/iris/rollback", **raw("", "text/plain"))
    full = service.post("/v1/models/iris/rollback", **raw("{}", "text/plain"))

    assert empty.status_code == 409, empty.text  # there is nothing to go back to
    assert full.status_code == 415


def test_a_picture_above_ten_mebibytes_is_too_large(service: Any) -> None:
    service.create("pets", input={"kind": "image", "size": 16, "channels": 3})
    content = b"\x89PNG" + b"0" * (11 << 20)

    assert service.post("/v1/models/pets/predict", **raw(content, "image/png")).status_code == 413
    assert service.post("/v1/models/pets/predict", files={"file": ("a.png", content)}).status_code == 413


def test_too_many_files_are_too_many(service: Any) -> None:
    service.create("pets", input={"kind": "image", "size": 16, "channels": 3})

    answer = service.post("/v1/models/pets/predict", files=[("file", (f"{n}.png", b"0")) for n in range(65)])

    assert answer.status_code == 413, answer.text


def test_a_line_without_end_is_too_large(service: Any) -> None:
    service.create()

    answer = service.post(SAMPLES, content=zeros(20 << 20, []), headers={"Content-Type": "application/x-ndjson"})

    assert answer.status_code == 413


MODEL: dict[str, Any] = {"name": "m", "input": {"kind": "features", "size": 4}}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("no input", {"name": "m"}),
    ("a path for a name", {"name": "../m", "input": {"kind": "features", "size": 4}}),
    ("a capital", {"name": "M", "input": {"kind": "features", "size": 4}}),
    (
        "unknown architecture",
        {"name": "m", "input": {"kind": "features", "size": 4}, "network": {"architecture": "os"}},
    ),
    (
        "an address for weights",
        {"name": "m", "input": {"kind": "features", "size": 4}, "network": {"weights": "http://x"}},
    ),
    (
        "weights nobody added",
        {
            "name": "m",
            "input": {"kind": "image", "size": 32, "channels": 3},
            "network": {"architecture": "resnet18", "weights": "sha256:" + "0" * 64},
        },
    ),
    (
        "another kind of input than the network's",
        {"name": "m", "input": {"kind": "features", "size": 4}, "network": {"architecture": "resnet18"}},
    ),
    ("text for a size", {"name": "m", "input": {"kind": "features", "size": "4"}}),
    ("unknown field", {"name": "m", "input": {"kind": "features", "size": 4}, "recipes": {}}),
    ("a label twice", {"name": "m", "input": {"kind": "features", "size": 4}, "labels": ["a", "a"]}),
    ("a label with a NUL", {"name": "m", "input": {"kind": "features", "size": 4}, "labels": ["a\0"]}),
    ("a recipe out of bounds", {"name": "m", "input": {"kind": "features", "size": 4}, "recipe": {"holdout": 2}}),
]


@pytest.mark.parametrize(("what", "body"), MODELS, ids=[one[0] for one in MODELS])
def test_a_model_that_cannot_be_is_not_created(service: Any, what: str, body: dict[str, Any]) -> None:
    answer = service.post("/v1/models", json=body)

    assert answer.status_code == 422, answer.text
    check_problem(answer)
    assert service.get("/v1/models").json() == {"models": []}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/iris/samples?cursor=x",
        "/v1/models/iris/samples?limit=0",
        "/v1/models/iris/samples?state=gone",
        "/v1/models/iris/samples?label=%00",
        "/v1/models/iris/versions/0",
        "/v1/models/iris/versions/99999999999999999999",
        "/v1/models/IRIS",
        "/v1/models/iris/predictions/1",
        "/v1/events?cursor=-1",
    ],
)
def test_addresses_of_the_wrong_shape_are_refused(service: Any, path: str) -> None:
    service.create()

    answer = service.get(path)

    assert answer.status_code == 422, answer.text
    check_problem(answer)


def test_what_is_not_there_is_a_problem_too(service: Any) -> None:
    for answer, status in [
        (service.get("/v1/nothing"), 404),
        (service.get("/v1/models/none"), 404),
        (service.post("/v1/models/none/predict", json={"inputs": [GOOD]}), 404),
        (service.ask("PUT", "/v1/models"), 405),
    ]:
        assert answer.status_code == status
        check_problem(answer)


def test_an_unforeseen_error_shows_nothing_of_the_inside(service: Any) -> None:
    def broken() -> None:
        raise RuntimeError("/etc/secret")

    service.app.router.add_api_route("/livez/broken", broken)

    answer = service.get("/livez/broken")

    assert answer.status_code == 500
    check_problem(answer)
    assert "secret" not in answer.text
    assert answer.json()["incident"]


def check_problem(answer: Any) -> None:
    assert answer.headers["content-type"] == "application/problem+json"
    body = json.loads(answer.text)
    assert body.keys() >= {"type", "title", "status", "detail"}
    assert body["status"] == answer.status_code
    assert len(body["detail"]) > 10


def nothing_is_stored(service: Any, model: str = "iris") -> None:
    assert service.get(f"/v1/models/{model}/samples").json()["samples"] == []
    assert service.parts.writer.depth == 0
