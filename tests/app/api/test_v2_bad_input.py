"""Bad input in the Open Inference Protocol is one clear refusal, harms no neighbour, and leaves nothing behind."""

import gzip
import json
import random
import socket
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.app.api.conftest import ADMIN_KEY, listening, png
from tests.processes.processes import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")

INFER = "/v2/models/iris/infer"
LENGTH = "Inference-Header-Content-Length"
ROW = [5.1, 3.5, 1.4, 0.2]
RAW = np.array([ROW], "<f4").tobytes()


def head(**more: Any) -> dict[str, Any]:
    """The JSON part of a request with one row in 16 bytes, right but for what is given."""
    one = {
        "name": "features",
        "shape": [1, 4],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 16},
        **more,
    }
    return {"inputs": [{name: value for name, value in one.items() if value is not None}]}


def binary(header: Any, raw: bytes = RAW, length: str | None = None, **headers: str) -> dict[str, Any]:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return {"content": text + raw, "headers": {LENGTH: str(len(text)) if length is None else length, **headers}}


def plain(**more: Any) -> dict[str, Any]:
    return {"content": json.dumps(head(**{"parameters": None, "data": ROW, **more}))}


def packed(content: bytes, coding: str) -> dict[str, Any]:
    return {"content": content, "headers": {"Content-Encoding": coding}}


GOOD = plain()["content"].encode()
TWO = head()["inputs"] * 2

REQUESTS: list[tuple[str, dict[str, Any], int]] = [
    # The body as a whole.
    ("nothing", {"content": b""}, 400),
    ("not JSON", {"content": b"{"}, 400),
    ("not UTF-8", {"content": b'{"id": "\xff"}'}, 400),
    ("deep JSON", {"content": b'{"inputs": ' + b"[" * 40 + b"]" * 40 + b"}"}, 400),
    ("a lone surrogate", {"content": b'{"id": "\\ud800"}'}, 400),
    ("a list", {"content": b"[1]"}, 422),
    ("another type", {"content": GOOD, "headers": {"Content-Type": "application/x-ndjson"}}, 415),
    ("a form", {"content": GOOD, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 415),
    # Lengths.
    ("no length where bytes follow", {"content": binary(head())["content"]}, 400),
    ("a length beyond the body", binary(head(), length="99999"), 400),
    ("a length too short", binary(head(), length="10"), 400),
    ("no length at all", binary(head(), length=""), 400),
    ("a length below zero", binary(head(), length="-1"), 400),
    ("a length in words", binary(head(), length="ten"), 400),
    ("an endless length", binary(head(), length="9" * 40), 400),
    ("more bytes than told", binary(head(), RAW + b"0"), 400),
    ("fewer bytes than told", binary(head(), RAW[:-1]), 400),
    ("bytes nobody told of", binary(head(parameters=None, data=ROW)), 400),
    ("a size that lies with the body", binary(head(parameters={"binary_data_size": 12}), RAW[:12]), 422),
    ("a huge size", binary(head(parameters={"binary_data_size": 2**40})), 422),
    ("a size below zero", binary(head(parameters={"binary_data_size": -16})), 422),
    ("a size in words", binary(head(parameters={"binary_data_size": "16"})), 422),
    ("true for a size", binary(head(parameters={"binary_data_size": True})), 422),
    # Tensors.
    ("no inputs", {"content": b'{"inputs": []}'}, 422),
    ("inputs left out", {"content": b'{"id": "1"}'}, 422),
    ("an input twice", binary({"inputs": TWO}, RAW * 2), 422),
    ("very many inputs", binary({"inputs": TWO * 500}, RAW * 1000), 422),
    ("another input", binary(head(name="pixels")), 422),
    ("neither data nor bytes", plain(data=None), 422),
    ("data and bytes", binary(head(data=ROW)), 422),
    ("shared memory", plain(parameters={"shared_memory_region": "x", "shared_memory_byte_size": 16}), 422),
    ("another datatype", binary(head(datatype="INT32")), 422),
    ("no such datatype", binary(head(datatype="FP31")), 422),
    ("FP64 that is FP32", binary(head(datatype="FP64")), 422),
    ("text for features", binary(head(datatype="BYTES")), 422),
    ("no shape", binary(head(shape=[])), 422),
    ("a flat shape", binary(head(shape=[4])), 422),
    ("another size", binary(head(shape=[4, 1])), 422),
    ("one axis too many", binary(head(shape=[1, 1, 4])), 422),
    ("very many axes", binary(head(shape=[1] * 5000)), 422),
    ("no rows", binary(head(shape=[0, 4], parameters={"binary_data_size": 0}), b""), 422),
    ("an axis below zero", binary(head(shape=[-1, 4])), 422),
    ("an axis in words", binary(head(shape=["1", 4])), 422),
    ("a huge axis", binary(head(shape=[2**31 - 1, 4])), 422),
    ("a monstrous axis", binary(head(shape=[10**300, 4])), 422),
    ("257 rows", binary(head(shape=[257, 4], parameters={"binary_data_size": 16 * 257}), RAW * 257), 422),
    ("NaN", binary(head(), np.array([[1, np.nan, 1, 1]], "<f4").tobytes()), 422),
    ("a signalling NaN", binary(head(), b"\x01\x00\xa0\x7f" * 4), 422),
    ("infinity", binary(head(), np.array([[1, -np.inf, 1, 1]], "<f4").tobytes()), 422),
    ("NaN in JSON", {"content": GOOD.replace(b"5.1", b"NaN")}, 422),
    ("too large in JSON", {"content": GOOD.replace(b"5.1", b"1e300")}, 422),
    ("beyond any float in JSON", {"content": GOOD.replace(b"5.1", b"1" * 400)}, 422),
    ("text for a number", plain(data=["5.1", 1, 1, 1]), 422),
    ("true for a number", plain(data=[True, 1, 1, 1]), 422),
    ("null for a number", plain(data=[None, 1, 1, 1]), 422),
    ("too few numbers", plain(data=ROW[:3]), 422),
    ("too many numbers", plain(data=[*ROW, 1]), 422),
    ("rows of other lengths", plain(shape=[2, 4], data=[[1, 2, 3, 4, 5], [6, 7, 8]]), 422),
    ("nested deeper than its shape", plain(data=[[ROW]]), 422),
    ("data that is no list", plain(data="5.1"), 422),
    ("data that is an object", plain(data={"0": 5.1}), 422),
    # Outputs.
    ("an unknown output", binary({**head(), "outputs": [{"name": "logits"}]}), 422),
    ("an output twice", binary({**head(), "outputs": [{"name": "label"}] * 2}), 422),
    ("an output without a name", binary({**head(), "outputs": [{}]}), 422),
    ("labels of labels", binary({**head(), "outputs": [{"name": "label", "parameters": {"classification": 2}}]}), 422),
    (
        "fewer labels than none",
        binary({**head(), "outputs": [{"name": "probabilities", "parameters": {"classification": -1}}]}),
        422,
    ),
    (
        "an output into shared memory",
        binary({**head(), "outputs": [{"name": "label", "parameters": {"shared_memory_region": "x"}}]}),
        422,
    ),
    ("bytes by a word", binary({**head(), "parameters": {"binary_data_output": "yes"}}), 422),
    ("an id that is a number", binary({**head(), "id": 7}), 422),
    # Compression.
    ("an unknown encoding", packed(GOOD, "br"), 415),
    ("two encodings", packed(gzip.compress(GOOD), "gzip, gzip"), 415),
    ("no gzip", packed(GOOD, "gzip"), 400),
    ("no deflate", packed(GOOD, "deflate"), 400),
    ("gzip cut short", packed(gzip.compress(GOOD)[:-4], "gzip"), 400),
    ("gzip damaged", packed(gzip.compress(GOOD)[:-8] + b"12345678", "gzip"), 400),
    ("more after gzip", packed(gzip.compress(GOOD) + b"more", "gzip"), 400),
    ("a bomb", packed(gzip.compress(b" " * (33 << 20)), "gzip"), 413),
    ("a bomb in deflate", packed(zlib.compress(b" " * (33 << 20)), "deflate"), 413),
    ("nothing in gzip", packed(b"", "gzip"), 400),
    ("much that makes nothing", packed(b"\x78\x9c" + b"\x00\x00\x00\xff\xff" * 500_000, "deflate"), 400),
]


def check_refusal(answer: Any, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error"}
    assert len(answer.json()["error"]) > 10


def asked_well(service: Any) -> None:
    """Neighbours are answered, nothing of what was refused is kept, and no place is held."""
    assert service.parts.writer.depth == 0
    assert service.post(INFER, **binary(head())).status_code == 200
    assert "perennial_predict_inflight 0.0" in metrics(service)


@pytest.mark.parametrize(("what", "sent", "status"), REQUESTS, ids=[one[0] for one in REQUESTS])
def test_a_request_that_is_wrong_is_refused(service: Any, what: str, sent: dict[str, Any], status: int) -> None:
    service.create()

    check_refusal(service.post(INFER, **sent), status)

    asked_well(service)


def test_the_request_that_all_these_spoil_is_right(service: Any) -> None:
    service.create()

    for sent in (
        binary(head()),
        plain(),
        {"content": GOOD},
        packed(gzip.compress(GOOD), "gzip"),
        packed(GOOD, "identity"),
    ):
        assert service.post(INFER, **sent).status_code == 200


def file(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in contents)


def image(raw: bytes, count: int = 1, **more: Any) -> dict[str, Any]:
    more = {"parameters": {"binary_data_size": len(raw)}, **more}
    return binary(head(**{"name": "image", "datatype": "BYTES", "shape": [count], **more}), raw)


PIXELS = {"datatype": "UINT8", "shape": [1, 3, 16, 16]}
PICTURES: list[tuple[str, dict[str, Any], int]] = [
    ("no picture", image(file(b"hello")), 422),
    ("half a picture", image(file(png()[:-20])), 422),
    ("an empty picture", image(file(b"")), 422),
    ("fewer than told", image(file(png()), 2), 400),
    ("more than told", image(file(png(), png())), 400),
    ("a length beyond the bytes", image(struct.pack("<I", 2**32 - 1) + png()), 400),
    ("half a length", image(b"\x01\x00"), 400),
    ("no bytes", image(b""), 400),
    ("too large a picture", image(file(png() + b"0" * (10 << 20))), 422),
    ("a picture in a row of its own", image(file(png()), shape=[1, 1]), 422),
    ("no base64", plain(name="image", datatype="BYTES", shape=[1], data=["%%%"]), 422),
    ("numbers for a picture", plain(name="image", datatype="BYTES", shape=[1], data=[1]), 422),
    ("features", plain(), 422),
    ("numbers between", image(np.zeros((1, 3, 16, 16), "<f4").tobytes(), **{**PIXELS, "datatype": "FP32"}), 422),
    ("channels last", image(bytes(3 * 16 * 16), **{**PIXELS, "shape": [1, 16, 16, 3]}), 422),
    ("another size", image(bytes(3 * 8 * 8), **{**PIXELS, "shape": [1, 3, 8, 8]}), 422),
    ("grey", image(bytes(16 * 16), **{**PIXELS, "shape": [1, 1, 16, 16]}), 422),
    ("too few pixels", image(bytes(3 * 16 * 15), **PIXELS), 422),
    ("a pixel of 256", plain(**{"name": "image", **PIXELS, "data": [256] * 768}), 422),
    ("a pixel below zero", plain(**{"name": "image", **PIXELS, "data": [-1] * 768}), 422),
    ("half a pixel", plain(**{"name": "image", **PIXELS, "data": [0.5] * 768}), 422),
]


@pytest.mark.parametrize(("what", "sent", "status"), PICTURES, ids=[one[0] for one in PICTURES])
def test_a_picture_that_cannot_be_used_is_refused(service: Any, what: str, sent: dict[str, Any], status: int) -> None:
    service.create("pets", input={"kind": "image", "size": 16, "channels": 3}, labels=["cat", "dog"])

    check_refusal(service.post("/v2/models/pets/infer", **sent), status)

    assert service.parts.writer.depth == 0
    assert service.post("/v2/models/pets/infer", **image(file(png()))).status_code == 200


def test_the_row_that_is_wrong_is_named(service: Any) -> None:
    service.create()
    rows = np.array([ROW, [1, 1, np.nan, 1]], "<f4")

    answer = service.post(INFER, **binary(head(shape=[2, 4], parameters={"binary_data_size": 32}), rows.tobytes()))

    assert answer.json()["error"].startswith("features[1]: Number 2")


def test_every_wrong_field_is_named_and_nothing_that_came_is_sent_back(service: Any) -> None:
    service.create()

    answer = service.post(INFER, **plain(datatype=7, name="secret-of-mine" * 20, shape=[1, "4"]))

    check_refusal(answer, 422)
    assert "body.inputs.0.datatype" in answer.json()["error"]
    assert "body.inputs.0.shape.1" in answer.json()["error"]
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/nothing", 404),
        ("/v2/models/none", 404),
        ("/v2/models/none/ready", 404),
        ("/v2/models/IRIS", 422),
        ("/v2/models/iris/versions/0", 422),
        ("/v2/models/iris/versions/x/ready", 422),
        ("/v2/models/iris/versions/9", 404),
        ("/v2/models/iris/infer", 405),
    ],
)
def test_what_is_not_there_is_told_in_the_protocols_own_form(service: Any, path: str, status: int) -> None:
    service.create()

    check_refusal(service.get(path), status)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"ready": "yes"}'])
def test_an_index_that_is_asked_for_wrongly_is_refused(service: Any, content: bytes) -> None:
    check_refusal(service.post("/v2/repository/index", content=content), 400 if content == b"{" else 422)


def test_an_unforeseen_error_shows_nothing_of_the_inside(service: Any) -> None:
    def broken() -> None:
        raise RuntimeError("/etc/secret")

    service.app.router.add_api_route("/v2/health/live/broken", broken, openapi_extra={"x-scope": "predict"})

    answer = service.get("/v2/health/live/broken")

    check_refusal(answer, 500)
    assert "secret" not in answer.text


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_never_break_the_server(service: Any, seed: int) -> None:
    service.create()
    draw = random.Random(seed)
    odd = (None, True, -1, 0, 2**31, 10**40, 0.5, "", "x" * 300, [], [[]], {}, [1, 4], "FP64", float("nan"))

    for _ in range(80):
        header: dict[str, Any] = {
            **head(),
            "id": "a",
            "parameters": {},
            "outputs": [{"name": "label", "parameters": {}}],
        }
        places = [
            header,
            header["inputs"][0],
            header["inputs"][0]["parameters"],
            header["outputs"][0],
            header["parameters"],
        ]
        place = draw.choice(places)
        names = [*place, "data", "binary_data_size", "binary_data_output", "classification", "binary_data", "shape"]
        place[draw.choice(names)] = draw.choice(odd)
        sent = binary(header)
        if draw.random() < 0.3:
            content = bytearray(sent["content"])
            content[draw.randrange(len(content))] = draw.randrange(256)
            sent["content"] = bytes(content)
        answer = service.post(INFER, **sent)
        assert answer.status_code < 500, (header, answer.text)
    assert service.post(INFER, **binary(head())).status_code == 200


# What only a real socket shows.


def request(content: bytes, **headers: str) -> bytes:
    lines = {
        "Host": "127.0.0.1",
        "Authorization": f"Bearer {ADMIN_KEY}",
        "Content-Length": str(len(content)),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {INFER} HTTP/1.1\r\n{head}\r\n".encode() + content


def connected(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def everything_from(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    while piece := connection.recv(1 << 16):
        found += piece
    return found


def answer_from(connection: socket.socket) -> bytes:
    """One answer with a JSON object in it: head and body may come one after the other."""
    answer = b""
    while b"}" not in answer:
        piece = connection.recv(1 << 16)
        assert piece, answer
        answer += piece
    return answer


def infer(address: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    return httpx.post(f"http://{address}{INFER}", content=GOOD, headers=headers, timeout=20, trust_env=False)


def metrics(service: Any) -> str:
    text: str = service.get("/metrics", key=None).text
    return text


def test_a_slow_sender_is_cut_off_and_holds_nobody_up(start: Any, portal: Any) -> None:
    service = start(request_seconds=0.5)
    service.create()
    with listening(service, portal) as address, ExitStack() as open_ones:
        slow = [open_ones.enter_context(connected(address)) for _ in range(4)]
        for one in slow:
            one.sendall(request(GOOD)[:-10])

        assert infer(address).status_code == 200
        for one in slow:
            answer = answer_from(one)
            assert answer.startswith(b"HTTP/1.1 504"), answer
            assert b'{"error":"No answer within 0.5 s' in answer

        assert infer(address).status_code == 200
    assert "perennial_predict_inflight 0.0" in metrics(service)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_half_closed_connections_are_closed_and_leave_no_file_open(service: Any, address: str) -> None:
    service.create()
    assert infer(address).status_code == 200
    before = open_files()

    for sent in (request(GOOD)[:-10], request(GOOD)[:60], request(GOOD, **{"Content-Encoding": "gzip"})[:-10], b""):
        for _ in range(10):
            with connected(address) as half:
                half.sendall(sent)
                half.shutdown(socket.SHUT_WR)
                answer = everything_from(half)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer

    wait_until(lambda: open_files() <= before, "the server lets go of every connection", 10)
    assert infer(address).status_code == 200
    assert "perennial_predict_inflight 0.0" in metrics(service)


def test_a_client_that_leaves_gives_its_place_back_and_its_neighbours_are_answered(service: Any, address: str) -> None:
    service.create()
    service.join("iris", window_ms=10_000, queue_items=5)  # nothing is answered yet
    with ThreadPoolExecutor(1) as neighbours:
        leaving = [connected(address) for _ in range(4)]
        for one in leaving:
            one.sendall(request(GOOD))
        wait_until(lambda: "perennial_predict_inflight 4.0" in metrics(service), "four are in work", 10)
        staying = neighbours.submit(infer, address)
        wait_until(lambda: "perennial_predict_inflight 5.0" in metrics(service), "the fifth is too", 10)
        refused = infer(address)
        check_refusal(refused, 429)
        assert int(refused.headers["retry-after"]) >= 1

        for one in leaving:
            one.close()
        wait_until(lambda: "perennial_predict_inflight 1.0" in metrics(service), "their places are free", 10)
        service.join("iris", queue_items=5)

        assert staying.result(20).status_code == 200
    assert 'perennial_predictions_total{model="iris",version="1"} 1.0' in metrics(service)
    assert "perennial_predict_inflight 0.0" in metrics(service)


def test_a_body_of_100_megabytes_is_cut_off_early(service: Any, address: str) -> None:
    service.create()
    with connected(address) as endless:
        endless.sendall(request(b"", **{"Content-Length": str(100 << 20)}))

        answer = answer_from(endless)

    assert answer.startswith(b"HTTP/1.1 413"), answer
    assert b'{"error":"The body is larger' in answer
    assert infer(address).status_code == 200


def test_a_second_type_lifts_no_limit(service: Any, address: str) -> None:
    service.create()
    twice = {"Content-Type": "", "content-type": "application/x-ndjson", "Content-Length": str(100 << 20)}
    with connected(address) as endless:
        endless.sendall(request(b"", **twice))

        answer = answer_from(endless)

    assert answer.startswith(b"HTTP/1.1 413"), answer


def test_bodies_that_swell_are_cut_off_side_by_side(service: Any, address: str) -> None:
    service.create()
    bomb = request(gzip.compress(b" " * (40 << 20), 1), **{"Content-Encoding": "gzip"})

    def send(_: int) -> bytes:
        with connected(address) as one:
            one.sendall(bomb)
            return one.recv(1 << 16)[:12]

    with ThreadPoolExecutor(8) as senders:
        answers = list(senders.map(send, range(24)))

    assert set(answers) == {b"HTTP/1.1 413"}
    asked_well(service)
