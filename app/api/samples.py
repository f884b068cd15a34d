"""Samples: taught by forms, JSON or an endless NDJSON stream; looked up, corrected and withdrawn."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from app.api.body import described, read_json, unsupported
from app.api.deps import Wired
from app.api.error_handlers import Interrupted
from app.api.key_cache import Scope
from app.api.limits import BODY_BYTES, NDJSON, lines, media_type
from app.api.openapi import problems
from app.api.paths import Limit, ModelPath, SampleCursor, SamplePath, TextFilter
from app.api.payloads import file_payloads, read_form, text_fields
from app.api.sample_reader import Item, SampleReader, SampleTaker, Tally, read_items
from app.api.schemas.samples import (
    HistoryStep,
    LabelChange,
    ReceiptAnswer,
    ReceiptsAnswer,
    SamplesAnswer,
    SamplesEnvelope,
    SamplesRequest,
)
from app.api.security import Called, needs
from app.errors import InvalidItem, Overloaded
from app.networks.preprocessor import preprocessor_for
from app.networks.spec import NetworkSpec
from app.storage.receipts import Receipt
from app.storage.states import LedgerRole, SampleState
from app.storage.tables import Model

router = APIRouter(prefix="/v1/models/{model}/samples", tags=["samples"])

GROUP_LINES = 512
GROUP_SECONDS = 1.0

_OTHER_BODIES: dict[str, Any] = {
    NDJSON: {
        "schema": {"$ref": "#/components/schemas/SampleItem"},
        "examples": {
            "two lines": {
                "value": '{"id": "row-18", "label": "setosa", "features": [4.9, 3.0, 1.4, 0.2]}\n'
                '{"id": "row-19", "label": "versicolor", "features": [7.0, 3.2, 4.7, 1.4]}\n'
            }
        },
    },
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["file", "label"],
            "properties": {
                "file": {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}},
                "label": {"type": "array", "items": {"type": "string"}},
                "id": {"type": "array", "items": {"type": "string"}},
                "source": {"type": "string"},
                "why": {"type": "string", "enum": ["audit", "uncertain", "complaint"]},
                "split": {"type": "string", "enum": ["test"]},
            },
        }
    },
}


@router.post(
    "",
    status_code=202,
    summary="Teach",
    response_model=SamplesAnswer,
    responses=problems(400, 404, 410, 413, 415, 429, 504),
    **needs(Scope.LABEL, **described(SamplesRequest, others=_OTHER_BODIES)),
)
async def teach(request: Request, model: ModelPath, parts: Wired, caller: Called) -> SamplesAnswer:
    """Store labelled inputs; the answer comes after the commit. One bad item never sinks the rest.

    The body is JSON, NDJSON (one sample a line, without end, committed in groups as it comes) or a form with as
    many `label` as `file` parts. When every single item is unfit the answer is a 4xx with the same members.
    """
    kind = media_type(request.headers.get("content-type"))
    row = await run_in_threadpool(parts.registry.model, model)
    preprocessor = preprocessor_for(_input_spec(row))
    reader = SampleReader(row, preprocessor, parts.writer, parts.predictions, source=caller.name)
    taker = SampleTaker(parts.intake, row, reader, actor=caller.name)
    try:
        if kind == NDJSON:
            with parts.streams.entered():
                await _take_stream(request, taker)
        elif kind == "application/json":
            body = await read_json(request, SamplesEnvelope)
            await run_in_threadpool(taker.take_json, body.samples)
        elif kind == "multipart/form-data":
            items = await _form_items(request, taker.tally)
            await run_in_threadpool(taker.take, items)
        else:
            raise unsupported(request, "application/json", NDJSON, "multipart/form-data")
    finally:
        tally = taker.tally
        parts.metrics.samples.labels(model, "accepted").inc(tally.accepted)
        parts.metrics.samples.labels(model, "duplicate").inc(tally.duplicates)
        parts.metrics.samples.labels(model, "rejected").inc(tally.refused)
    return taker.tally.final()


@router.get("", summary="List receipts", response_model=ReceiptsAnswer, responses=problems(404), **needs(Scope.LABEL))
def receipts(  # one parameter a filter; the framework passes them by name
    model: ModelPath,
    parts: Wired,
    state: Annotated[SampleState | None, Query()] = None,
    label: TextFilter = None,
    source: TextFilter = None,
    version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    cursor: SampleCursor = None,
    limit: Limit = 50,
) -> ReceiptsAnswer:
    """Tell what became of samples, newest first."""
    row = parts.registry.model(model)
    found = parts.receipts.list(
        row, state=state, label=label, source=source, version=version, before=cursor, limit=limit + 1
    )
    page = [_receipt(one) for one in found[:limit]]
    return ReceiptsAnswer(samples=page, next_cursor=page[-1].id if len(found) > limit else None)


@router.get(
    "/{sample}", summary="A receipt", response_model=ReceiptAnswer, responses=problems(404), **needs(Scope.LABEL)
)
def receipt(model: ModelPath, sample: SamplePath, parts: Wired) -> ReceiptAnswer:
    """Tell what became of a sample, step by step."""
    return _receipt(parts.receipts.get(parts.registry.model(model), sample))


@router.patch(
    "/{sample}",
    summary="Correct a label",
    response_model=ReceiptAnswer,
    responses=problems(400, 404, 409, 413, 415, 429),
    **needs(Scope.LABEL, **described(LabelChange)),
)
async def correct(
    request: Request, model: ModelPath, sample: SamplePath, parts: Wired, caller: Called
) -> ReceiptAnswer:
    """Give a sample another label: the next update learns it instead of the old one."""
    change = await read_json(request, LabelChange)

    def act() -> ReceiptAnswer:
        row = parts.registry.model(model)
        parts.intake.correct(row, sample, change.label, caller.name)
        return _receipt(parts.receipts.get(row, sample))

    return await run_in_threadpool(act)


@router.delete(
    "/{sample}",
    summary="Withdraw a sample",
    response_model=ReceiptAnswer,
    responses=problems(404, 409, 429),
    **needs(Scope.LABEL),
)
def withdraw(model: ModelPath, sample: SamplePath, parts: Wired, caller: Called) -> ReceiptAnswer:
    """Take a sample back: it is learned no more, and left out of what is rehearsed and held out."""
    row = parts.registry.model(model)
    parts.intake.withdraw(row, sample, caller.name)
    return _receipt(parts.receipts.get(row, sample))


async def _take_stream(request: Request, taker: SampleTaker) -> None:
    """Commit lines in groups as they come, so that a stream without end is stored as it flows."""
    group: list[tuple[int, bytes]] = []
    group_bytes, group_since, number = 0, time.monotonic(), 0
    arriving = aiter(lines(request.stream()))
    coming: asyncio.Future[list[bytes] | None] = asyncio.ensure_future(_following(arriving))
    try:
        while True:
            left = max(0.0, group_since + GROUP_SECONDS - time.monotonic()) if group else None
            await asyncio.wait({coming}, timeout=left)
            arrived: list[bytes] | None = []
            if coming.done():
                arrived = coming.result()
                if arrived is not None:
                    coming = asyncio.ensure_future(_following(arriving))
            for line in arrived or ():
                if line.strip():
                    group_since = group_since if group else time.monotonic()
                    group.append((number, line))
                    group_bytes += len(line)
                number += 1
                if len(group) >= GROUP_LINES or group_bytes >= BODY_BYTES:
                    await _take_group(taker, group)
                    group, group_bytes = [], 0
            if group and (arrived is None or time.monotonic() - group_since >= GROUP_SECONDS):
                await _take_group(taker, group)
                group, group_bytes = [], 0
            if arrived is None:
                return
    finally:
        coming.cancel()
        coming.add_done_callback(_seen)


async def _following(arriving: AsyncIterator[list[bytes]]) -> list[bytes] | None:
    return await anext(arriving, None)


def _seen(coming: asyncio.Future[list[bytes] | None]) -> None:
    """Look at what became of the part that nobody waits for any more, or asyncio complains."""
    if not coming.cancelled():
        coming.exception()


async def _take_group(taker: SampleTaker, group: list[tuple[int, bytes]]) -> None:
    try:
        await run_in_threadpool(taker.take_lines, group)
    except Overloaded as error:
        if not taker.tally.accepted and not taker.tally.duplicates:
            raise
        detail = f"The sample queue is full. Lines before {group[0][0]} are stored; send the rest again from there."
        members = {**taker.tally.answer().model_dump(mode="json"), "next_line": group[0][0]}
        raise Interrupted(detail, members, error.retry_after_seconds) from error


async def _form_items(request: Request, tally: Tally) -> list[Item]:
    async with read_form(request) as form:
        fields = text_fields(form, "label", "id", "source", "why", "split")
        payloads = await file_payloads(form)
    count = len(payloads)
    if not count or len(fields["label"]) != count:
        detail = f"Expected as many `label` as `file` parts; got {len(fields['label'])} and {count}."
        raise InvalidItem("unpaired", detail)
    for name in ("id", "source", "why", "split"):
        allowed = (0, count) if name == "id" else (0, 1, count)
        if len(fields[name]) not in allowed:
            raise InvalidItem("unpaired", f"Expected none or {count} `{name}` parts; got {len(fields[name])}.")
    rows = [
        {name: values[index if len(values) == count else 0] for name, values in fields.items() if values}
        for index in range(count)
    ]
    good: list[Item] = read_items(rows, tally)
    return [Item(item.index, item.sample, payloads[item.index]) for item in good]


def _input_spec(row: Model) -> NetworkSpec:
    return NetworkSpec.from_json(
        {**row.network, "input": row.input, "labels": [], "seed": 0, "weights": row.network.get("weights")}
    )


def _receipt(one: Receipt) -> ReceiptAnswer:
    sample = one.sample
    return ReceiptAnswer(
        id=sample.id,
        client_id=sample.client_id,
        state=SampleState(sample.state),
        label=one.label,
        source=sample.source,
        why=sample.why,
        split="test" if sample.side == LedgerRole.TEST else None,
        prediction_id=sample.prediction_id,
        version=one.version,
        reason=sample.reason,
        created_at=sample.created_at,
        updated_at=sample.updated_at,
        history=[
            HistoryStep(at=step.at, what=step.what, version=step.version, actor=step.actor) for step in one.history
        ],
    )
