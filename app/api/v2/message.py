"""An infer message in its two parts: JSON, and after it the bytes of tensors (the binary tensor data extension).

`Inference-Header-Content-Length` says where the JSON part ends; without it the message is JSON alone. Knows nothing
of what tensors mean.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from fastapi import Request, Response

from app.api.body import JSON, parse_json, unsupported
from app.api.error_handlers import Malformed
from app.api.limits import media_type
from app.api.v2.schemas import InferAnswer, InferRequest, InputTensor, OutputTensor, TensorParameters

JSON_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
KINDS = ("", JSON, BINARY)  # tritonclient says none


@dataclass(frozen=True)
class Sent:
    """An input tensor, and its bytes where it brought some."""

    tensor: InputTensor
    raw: memoryview | None


@dataclass(frozen=True)
class Filled:
    """An output tensor before it is written: a flat list of values, and their bytes if they go as such."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[object]
    raw: bytes | None = None


async def read_bytes(request: Request) -> bytes:
    """Read the body; Unsupported for a type that is not the protocol's, before a byte of it is taken."""
    if media_type(request.headers.get("content-type")) not in KINDS:
        raise unsupported(request, *KINDS[1:])
    return await request.body()


def split(body: bytes, json_length: str | None) -> tuple[InferRequest, list[Sent]]:
    """Parse the JSON part and give each tensor its bytes; Malformed where the lengths are not those of the body."""
    end = len(body) if json_length is None else _length(json_length, len(body))
    asked = parse_json(body[:end], InferRequest)
    sizes = [None if one.parameters is None else one.parameters.binary_data_size for one in asked.inputs]
    told = sum(size or 0 for size in sizes)
    if told != len(body) - end:
        raise Malformed(
            f"After the JSON part expected the {told} bytes that `binary_data_size` tells of, got {len(body) - end}. "
            f"`{JSON_LENGTH}` says where the JSON part ends."
        )
    places = pairwise(accumulate((size or 0 for size in sizes), initial=end))
    view = memoryview(body)
    return asked, [
        Sent(tensor, None if size is None else view[start:stop])
        for tensor, size, (start, stop) in zip(asked.inputs, sizes, places, strict=True)
    ]


def _length(text: str, available: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= available):
        raise Malformed(f"`{JSON_LENGTH}`: expected the length of the JSON part, at most that of the body.")
    return int(text)


def joined(model: str, version: int, request_id: str | None, filled: Sequence[Filled]) -> Response:
    """Write the answer with these outputs; JSON alone where no tensor goes as bytes."""
    outputs = [
        OutputTensor(
            name=one.name,
            datatype=one.datatype,
            shape=list(one.shape),
            parameters=None if one.raw is None else TensorParameters(binary_data_size=len(one.raw)),
            data=list(one.values) if one.raw is None else None,
        )
        for one in filled
    ]
    answer = InferAnswer(model_name=model, model_version=str(version), id=request_id, outputs=outputs)
    text = answer.model_dump_json(exclude_none=True).encode()
    headers = {"X-Model-Version": str(version)}
    raw = [one.raw for one in filled if one.raw is not None]
    if not raw:
        return Response(text, media_type=JSON, headers=headers)
    headers[JSON_LENGTH] = str(len(text))
    return Response(b"".join((text, *raw)), media_type=BINARY, headers=headers)


def elements(raw: memoryview, count: int) -> list[bytes]:
    """Take apart a BYTES tensor: each element's length in four bytes, then the element; Malformed if they lie."""
    found = []
    at = 0
    for _ in range(count):
        if at + 4 > len(raw):
            break
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4 + length
        if at > len(raw):
            break
        found.append(bytes(raw[at - length : at]))
    if len(found) != count or at != len(raw):
        raise Malformed(
            f"The BYTES tensor's elements do not fill its bytes: expected {count}, "
            "each after its length in four bytes, the least significant first."
        )
    return found


def in_elements(values: Sequence[str]) -> bytes:
    """Put together a BYTES tensor."""
    return b"".join(struct.pack("<I", len(text)) + text for text in (value.encode() for value in values))
