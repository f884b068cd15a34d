"""The short way at the protocol: the answers of the general way, whatever pieces a request comes in."""

import json
import socket
from typing import Any

import httpx
import pytest

from app.api import predict
from app.api.express import Express
from app.api.quick_http import QuickHttp
from app.errors import InvalidItem
from app.serving import batcher
from tests.app.api.conftest import ADMIN_KEY

PATH = "/v1/models/iris/predict"
GOOD = json.dumps({"inputs": [{"features": [1, 2, 3, 4]}], "top_k": 2}).encode()


def asking(body: bytes = GOOD, path: str = PATH, version: str = "1.1", **headers: str) -> bytes:
    fields = {
        "Host": "127.0.0.1",
        "Authorization": f"Bearer {ADMIN_KEY}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"POST {path} HTTP/{version}\r\n{head}\r\n".encode() + body


class Line:
    """A connection that is written to by hand."""

    def __init__(self, address: str) -> None:
        self.address = address
        host, port = address.split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=20)
        self._file = self._socket.makefile("rb")

    def send(self, *pieces: bytes) -> None:
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            self._socket.sendall(piece)

    def answer(self) -> tuple[int, dict[str, str], Any]:
        status = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.partition(b": ")
            headers[name.decode()] = value.decode()
        return status, headers, json.loads(self._file.read(int(headers["content-length"])))

    def ended(self) -> bool:
        return self._file.read(1) == b""

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies that went the short way at the protocol."""
    seen = []
    begin = QuickHttp._begin

    def noting(self: QuickHttp, quick: Any, body: bytes) -> None:
        seen.append(body)
        begin(self, quick, body)

    monkeypatch.setattr(QuickHttp, "_begin", noting)
    return seen


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies that were answered within the turn of the event loop in which they came."""
    seen = []
    answers = Express.answers_in_turn

    def noting(self: Express, quick: Any, body: bytes, send: Any, asker: int) -> bool:
        taken = answers(self, quick, body, send, asker)
        if taken:
            seen.append(body)
        return taken

    monkeypatch.setattr(Express, "answers_in_turn", noting)
    return seen


@pytest.fixture(params=[False, True], ids=["on a thread", "in turn"])
def soon(request: pytest.FixtureRequest) -> bool:
    """Whether the model is answered on the event loop."""
    return bool(request.param)


@pytest.fixture
def line(soon: bool, service: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(batcher, "BLINK_SECONDS", 10.0 if soon else 0.0)
    monkeypatch.setattr(batcher, "TURN_SECONDS", 10.0)
    service.create()
    line = Line(address)
    for _ in range(batcher.KNOWN_BATCHES if soon else 0):
        line.send(asking())
        assert line.answer()[0] == 200
    yield line
    line.close()


def without_ids(answer: dict[str, Any]) -> dict[str, Any]:
    predictions = [{**one, "prediction_id": ""} for one in answer["predictions"]]
    return {**answer, "predictions": predictions}


def test_the_answer_is_that_of_the_general_way_to_the_header(service: Any, line: Line, quick: list[bytes]) -> None:
    line.send(asking())
    status, headers, answer = line.answer()
    assert status == 200
    assert quick == [GOOD]

    line.send(asking(path=f"{PATH}?version=1"))
    general_status, general_headers, general = line.answer()
    assert quick == [GOOD], "a query goes the general way"
    assert general_status == 200
    assert without_ids(answer) == without_ids(general)
    assert {**headers, "date": ""} == {**general_headers, "date": ""}
    assert service.get(f"/v1/models/iris/predictions/{answer['predictions'][0]['prediction_id']}").status_code == 200


def test_many_requests_follow_one_another_on_a_connection(
    soon: bool, line: Line, quick: list[bytes], in_turn: list[bytes]
) -> None:
    for _ in range(20):
        line.send(asking())
        assert line.answer()[0] == 200
    assert len(quick) == 20
    assert len(in_turn) == (20 if soon else 0)


def test_a_request_in_pieces_goes_the_general_way(line: Line, quick: list[bytes]) -> None:
    whole = asking()
    head = whole.index(b"\r\n\r\n") + 4
    # A reader may find several pieces joined, but not the last byte before it was sent after an answer.
    line.send(whole[:head])
    line.send(asking()[head : head + 10], whole[head + 10 : -1])
    line.send(whole[-1:])
    status, _, answer = line.answer()
    assert status == 200
    assert answer["version"] == 1
    line.send(asking())
    assert line.answer()[0] == 200
    assert quick[-1:] == [GOOD]


def test_requests_sent_ahead_of_answers_are_answered_in_their_order(line: Line) -> None:
    bodies = [json.dumps({"inputs": [{"features": [n, n, n, n]}], "top_k": n}).encode() for n in (1, 2, 3)]
    line.send(b"".join(map(asking, bodies)))
    assert [len(line.answer()[2]["predictions"][0]["top"]) for _ in bodies] == [1, 2, 3]


def test_of_many_that_one_client_sends_ahead_one_is_answered_at_a_time(
    line: Line, in_turn: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr("app.serving.crew.QUIET_SECONDS", 0.0)
    line.send(asking())  # whoever met somebody before does so no more
    assert line.answer()[0] == 200
    in_turn.clear()
    line.send(asking() * 20)
    assert [line.answer()[0] for _ in range(20)] == [200] * 20
    assert len(in_turn) <= 2, "one of each piece that was read"


def test_half_a_request_behind_a_whole_one_waits_for_the_rest(line: Line) -> None:
    second = asking()
    line.send(asking() + second[:50])
    assert line.answer()[0] == 200
    line.send(second[50:])
    assert line.answer()[0] == 200


def test_what_is_refused_in_turn_leaves_no_timer_on_the_request_behind_it(
    service: Any, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    made = QuickHttp.connection_made

    def noting(self: QuickHttp, transport: Any) -> None:
        seen.append(self)
        made(self, transport)

    monkeypatch.setattr(QuickHttp, "connection_made", noting)
    refusals = [InvalidItem("bad", "Refused before it is in work.")]
    contents_of = predict.contents_of

    def refusing(*given: Any) -> list[bytes]:
        if refusals:
            raise refusals.pop()
        return contents_of(*given)

    other = Line(line.address)
    service.join("iris", window_ms=500, max_items=64)  # so that the second one is in work for a while
    monkeypatch.setattr(predict, "contents_of", refusing)
    other.send(asking() + asking())
    assert other.answer()[0] == 422
    connection = seen[-1]
    assert connection.timeout_keep_alive_task is None or connection.cycle.response_complete
    assert other.answer()[0] == 200
    other.close()


@pytest.mark.parametrize(("more", "quickly"), [({"Connection": "close"}, 1), ({"version": "1.0"}, 0)])
def test_a_connection_ends_where_the_client_wants_it(
    line: Line, quick: list[bytes], more: dict[str, str], quickly: int
) -> None:
    line.send(asking(**more))
    status, headers, _ = line.answer()
    assert status == 200
    assert headers["connection"] == "close"
    assert line.ended()
    assert len(quick) == quickly


@pytest.mark.parametrize(
    ("body", "more"),
    [
        (b'{"inputs": [{"features": [1, 2, 3]}]}', {}),
        (b'{"inputs": []}', {}),
        (b"{", {}),
        (b"\xff", {}),
        (GOOD, {"path": "/v1/models/nobody/predict"}),
        (GOOD, {"Authorization": "Bearer unknown"}),
        (GOOD, {"Authorization": ""}),
        (GOOD, {"Content_Type": "text/plain"}),
        (GOOD, {"Host": "elsewhere.example"}),
        (b"no picture", {"Content_Type": "image/png"}),
    ],
)
def test_what_is_wrong_is_told_in_the_same_words(service: Any, line: Line, body: bytes, more: dict[str, str]) -> None:
    line.send(asking(body, **more))
    status, headers, told = line.answer()
    assert status >= 400

    head = asking(body, **more).split(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    fields = dict(one.split(": ", 1) for one in head)
    general: httpx.Response = service.ask("POST", more.get("path", PATH) + "?", key=None, headers=fields, content=body)
    assert (status, told) == (general.status_code, general.json())
    assert headers["content-type"] == general.headers["content-type"]
    assert headers["x-content-type-options"] == "nosniff"


def test_what_is_unforeseen_is_told_without_internals(
    service: Any, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ArithmeticError("secret")

    monkeypatch.setattr(service.parts.writer, "write", broken)
    line.send(asking())
    status, _, told = line.answer()
    assert status == 500
    assert "secret" not in json.dumps(told)


def test_a_client_that_leaves_meanwhile_harms_nobody(service: Any, address: str, line: Line) -> None:
    service.join("iris", window_ms=200, max_items=64)
    leaving = Line(address)
    leaving.send(asking())
    line.send(asking())
    leaving.close()
    assert line.answer()[0] == 200
    line.send(asking())
    assert line.answer()[0] == 200
