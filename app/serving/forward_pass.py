"""One batch through its predictor: who is still wanted, what decodes, what each gets.

Called by the Batcher on a thread of its own, or on the event loop for what is over in a blink. Touches no future and
no queue: what became of each request is told, and the event loop ends them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.errors import DeadlineExceeded, InvalidItem, PerennialError
from app.log import get_logger
from app.serving.ask import Ask, Part

log = get_logger(__name__)


class WrongCount(PerennialError):
    """A network gave another number of answers than it got inputs."""

    def __init__(self, name: str, expected: int, given: int) -> None:
        super().__init__(f"The network of {name!r} answered {given} of {expected} inputs in a batch.")


@dataclass
class Outcome:
    """What became of a batch's requests, and how long its stages took, in seconds."""

    answered: list[tuple[Part[Any], Sequence[Any]]] = field(default_factory=list)
    failed: list[tuple[Ask[Any], Exception]] = field(default_factory=list)
    items: int = 0
    queue_seconds: list[float] = field(default_factory=list)
    decode_seconds: float = 0.0
    compute_seconds: float = 0.0
    cost_seconds: float | None = None  # of decoding and computing here, where that was measured


def decode(parts: Sequence[Part[Any]]) -> list[tuple[Ask[Any], Exception]]:
    """Decode the payloads of parts of one key, all at once; give the requests with an item that cannot be used."""
    started = time.perf_counter()
    contents = [part.ask.contents[index] for part in parts for index in range(part.start, part.stop)]
    try:
        items = iter(parts[0].ask.predictor.decode_many(contents))
    except Exception as error:  # noqa: BLE001  memory that ran out, a decoder's odd error: not the others' fault
        if len(parts) == 1:
            return [(parts[0].ask, error)]
        return [failure for part in parts for failure in decode([part])]
    failed: list[tuple[Ask[Any], Exception]] = []
    for part in parts:
        decoded = []
        for index, item in zip(range(part.start, part.stop), items, strict=False):
            if isinstance(item, InvalidItem):
                failed.append((part.ask, InvalidItem(item.code, f"inputs[{index}]: {item.detail}")))
            else:
                decoded.append(item)
        part.decoded = decoded if len(decoded) == len(part) else None
    seconds = time.perf_counter() - started
    for part in parts:
        part.decode_seconds = seconds * len(part) / len(contents)
    return failed


def answer(batch: Sequence[Part[Any]], request_seconds: float, *, measured: bool = True) -> Outcome:
    """Run a batch, all of one key. A request whose client left is dropped, one past its deadline fails.

    Where the pass itself fails, each request is tried alone, so that only the one that broke it fails. The cost of
    what is cheap is the thread's own time, since waits are not its cost; asking for that may cost as much as a layer.
    """
    outcome = Outcome()
    clock = time.thread_time if batch[0].ask.predictor.cheap else time.perf_counter
    begun = clock() if measured else 0.0
    ready = _decoded(batch, outcome, time.perf_counter(), request_seconds)
    if ready:
        decoded = time.perf_counter()
        outcome.items = sum(map(len, ready))
        outcome.decode_seconds = sum(part.decode_seconds for part in ready)
        _compute(ready, outcome)
        outcome.compute_seconds = time.perf_counter() - decoded
    if measured:
        outcome.cost_seconds = clock() - begun
    return outcome


def _decoded(batch: Sequence[Part[Any]], outcome: Outcome, now: float, request_seconds: float) -> list[Part[Any]]:
    wanted = []
    for part in batch:
        ask = part.ask
        if ask.left:
            continue
        if now > ask.deadline:
            outcome.failed.append((ask, DeadlineExceeded(request_seconds)))
            continue
        outcome.queue_seconds.append(now - ask.arrived)
        wanted.append(part)
    undecoded = [part for part in wanted if part.decoded is None]
    if undecoded:
        outcome.failed += decode(undecoded)
    return [part for part in wanted if part.decoded is not None]


def _compute(parts: Sequence[Part[Any]], outcome: Outcome) -> None:
    try:
        outcome.answered += _shared(parts)
    except Exception as error:  # noqa: BLE001  a user's network may raise anything
        if len(parts) == 1:
            outcome.failed.append((parts[0].ask, error))
            return
        log.warning("batch failed, each tried alone", requests=len(parts), error=str(error))
        for part in parts:
            _compute([part], outcome)


def _shared(parts: Sequence[Part[Any]]) -> list[tuple[Part[Any], Sequence[Any]]]:
    predictor = parts[0].ask.predictor
    top_k = max(part.ask.top_k for part in parts)
    items = [item for part in parts for item in part.decoded or ()]
    answers = predictor.predict(items, top_k)
    if len(answers) != len(items):
        raise WrongCount(predictor.name, len(items), len(answers))
    predictor.note(items)
    shared = []
    at = 0
    for part in parts:
        own = answers[at : at + len(part)]
        at += len(part)
        if part.ask.top_k < top_k:
            own = [predictor.trimmed(one, part.ask.top_k) for one in own]
        shared.append((part, own))
    return shared
