"""Compressed bodies come out as they were, whatever pieces they come in, and never faster than the limits allow."""

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.api.inflation import PIECE_BYTES, Inflation


async def length_and_sum(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what the body was."""
    body = await Request(scope, receive).body()
    after = await receive()
    assert after["type"] == "http.disconnect"
    await Response(f"{len(body)} {zlib.crc32(body)}")(scope, receive, send)


def answered(content: bytes, coding: str, step: int) -> str:
    """Send the content in steps of so many bytes."""
    pieces = [content[at : at + step] for at in range(0, len(content), step)]
    coming: Iterator[Message] = iter(
        [{"type": "http.request", "body": one, "more_body": True} for one in pieces]
        + [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    )
    sent: list[Message] = []

    async def receive() -> Message:
        return next(coming)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-encoding", coding.encode())]}
    asyncio.run(asyncio.wait_for(Inflation(length_and_sum)(scope, receive, send), 20))
    text: str = sent[1]["body"].decode()
    return text


@pytest.mark.parametrize("coding", ["gzip", "deflate", "GZIP", "identity", ""])
@pytest.mark.parametrize("step", [1, 7, 1 << 16])
@pytest.mark.parametrize("length", [0, 1, 10_000])
def test_a_body_comes_out_as_it_was(coding: str, step: int, length: int) -> None:
    content = random.Random(0).randbytes(length)
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding.lower(), bytes)(content)

    assert answered(packed, coding, step) == f"{length} {zlib.crc32(content)}"


@pytest.mark.parametrize("length", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 20 * PIECE_BYTES])
@pytest.mark.parametrize("step", [5, 1 << 16])
def test_a_body_that_swells_comes_out_in_pieces_and_whole(length: int, step: int) -> None:
    content = b"0" * length

    assert answered(gzip.compress(content), "gzip", step) == f"{length} {zlib.crc32(content)}"


def test_our_own_calls_take_compressed_bodies_too(service: Any) -> None:
    service.create()
    one = {"features": [1, 2, 3, 4]}
    lines = b"".join(json.dumps({**one, "label": label}).encode() + b"\n" for label in "abc")

    predicted = service.post(
        "/v1/models/iris/predict",
        content=gzip.compress(json.dumps({"inputs": [one]}).encode()),
        headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
    )
    taught = service.post(
        "/v1/models/iris/samples",
        content=zlib.compress(lines),
        headers={"Content-Type": "application/x-ndjson", "Content-Encoding": "deflate"},
    )
    refused = service.post(
        "/v1/models/iris/predict",
        content=b"{}",
        headers={"Content-Type": "application/json", "Content-Encoding": "br"},
    )

    assert (predicted.status_code, taught.status_code, refused.status_code) == (200, 202, 415)
    assert taught.json()["accepted"] == 3
    assert refused.headers["content-type"] == "application/problem+json"
