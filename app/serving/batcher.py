"""Joins concurrent requests into forward passes, off the event loop, bounded in number and in time.

The predict endpoints await `answer`. Batches form by themselves: while one is computed the next gathers, so a lone
request never waits for company. What is over in a blink (numbers through a small network) is answered on the event
loop, joined with all that arrived in the same turn: handing it to a thread would cost more than it does.
Threads are woken by what arrives, nothing polls. Knows nothing of HTTP.
"""

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from app.batching import Batching
from app.errors import Overloaded
from app.log import get_logger
from app.serving import forward_pass
from app.serving.ask import Answering, Ask, Ended, Part
from app.serving.batch_report import BatchReport
from app.serving.crew import QUIET_SECONDS, Crew
from app.serving.forward_pass import Outcome
from app.serving.model_queue import ModelQueue
from app.serving.pace import COMPUTING, step_back
from app.serving.watch import Watch

log = get_logger(__name__)

A = TypeVar("A")

BLINK_SECONDS = 0.0005  # a single item that costs less is answered on the event loop …
TURN_SECONDS = 0.001  # … and as many at a time as this allows
LEAVING = 4  # times as much, and it goes back to a thread: a model at the bound does not go to and fro
KNOWN_BATCHES = 4  # seen before a cost is believed


class Batcher:
    """A queue for each model, a few threads that run batches and a few that decode."""

    def __init__(
        self,
        *,
        threads: int,
        decoding_threads: int,
        request_seconds: float,
        inflight_limit: int = 256,
        batching: Batching | None = None,
        observe: Callable[[BatchReport], None] = lambda _: None,
        tell: Callable[[int], None] = lambda _: None,
        widen: Callable[[], None] | None = None,
    ) -> None:
        """On the event loop `observe` is called once for each batch, `tell` with the requests in work at each change.

        `widen` gives the thread that calls it all cores: one more thread does, for requests that come alone.
        """
        self._request_seconds = request_seconds
        self._inflight_limit = inflight_limit
        self._batching = batching or Batching()
        self._observe = observe
        self._tell = tell
        self._queues: dict[str, ModelQueue] = {}
        self._crew = Crew(threads, self._run, widen)
        self._undecoded: SimpleQueue[tuple[Part[Any], ModelQueue] | None] = SimpleQueue()
        self._due_now: set[str] = set()  # queues that the event loop answers in its next turn
        self._asker, self._alone_at = 0, 0.0  # who asked last in turn, and from when on nobody else did for a while
        self.inflight = 0  # requests; on the event loop only
        self._decoders = [
            threading.Thread(target=self._decode, name=f"decode-{n}", daemon=True) for n in range(decoding_threads)
        ]

    def start(self) -> None:
        self._crew.start()
        for thread in self._decoders:
            thread.start()

    def stop(self) -> None:
        """End the threads when all that waits is answered."""
        for _ in self._decoders:
            self._undecoded.put(None)
        for thread in self._decoders:
            if thread.is_alive():
                thread.join(timeout=30)
        self._crew.stop()

    def configure(self, name: str, batching: Batching) -> None:
        """Join that model's requests in another way from the next batch on."""
        queue = self._queue(name)
        if queue.batching != batching:
            with self._crew.lock:
                queue.batching = batching
                self._crew.wake_all()

    def require_room(self, name: str) -> None:
        """Raise Overloaded when that model's queue is full: a look before a large body is read."""
        queue = self._queues.get(name)
        if queue is not None and not queue.has_room(1):
            raise _overloaded(queue, 1)

    async def answer(
        self,
        predictor: Answering[A],
        contents: Sequence[bytes],
        top_k: int = 5,
        leaving: Callable[[], Awaitable[object]] | None = None,
    ) -> list[A] | None:
        """Answer each payload with this predictor, in order; None when `leaving` ended first.

        Raises InvalidItem which names the index that cannot be used, Overloaded when too many items wait, and
        DeadlineExceeded. On the event loop only.
        """
        queue = self._queue(predictor.name)
        future: asyncio.Future[list[A] | None] = asyncio.get_running_loop().create_future()

        def ended(answers: "list[A] | None", error: "Exception | None") -> None:  # quoted: made for each request
            if future.done():
                return
            if error is None:
                future.set_result(answers)
            else:
                future.set_exception(error)

        ask = self._taken(queue, predictor, contents, top_k, ended)
        watch = Watch(ask, leaving, self._request_seconds)
        try:
            self._put(ask, queue)
            return await future
        finally:
            self._let_go(queue, len(contents))
            ask.left = True
            watch.stop()
            if ask.missing:
                with self._crew.lock:
                    queue.drop(ask)

    def answer_in_turn(
        self, predictor: Answering[A], contents: Sequence[bytes], top_k: int, ended: Ended[A], asker: int
    ) -> bool:
        """Have payloads answered within this turn of the event loop, if that is how the model is answered; say so.

        Spares the caller a task and a future, which cost as much as a small network. `ended` hears of the answers
        before the turn after this one, or at once: `asker` is who asks, and while nobody else does there is nothing
        to wait for. Who waits must not leave. Raises Overloaded. On the event loop only.
        """
        queue = self._queue(predictor.name)
        if not self._on_loop(predictor, queue) or not 0 < len(contents) <= self._in_a_turn(queue):
            return False

        count = len(contents)

        def let_go(answers: "list[A] | None", error: "Exception | None") -> None:  # holds no ask, which holds this
            self._let_go(queue, count)
            try:
                ended(answers, error)
            except Exception:  # the others of the batch must hear of theirs
                log.exception("answer lost", model=queue.name)

        if asker != self._asker:
            self._asker, self._alone_at = asker, time.perf_counter() + QUIET_SECONDS
        ask = self._taken(queue, predictor, contents, top_k, let_go)
        alone = self._crew.quiet and time.perf_counter() >= self._alone_at
        self._put_on_loop(queue, [Part(ask, 0, count)], at_once=alone)
        return True

    def _taken(
        self, queue: ModelQueue, predictor: Answering[A], contents: Sequence[bytes], top_k: int, ended: Ended[A]
    ) -> Ask[A]:
        """Count a request as in work, if there is room for it."""
        if not queue.has_room(len(contents)):
            raise _overloaded(queue, len(contents))
        now = time.perf_counter()
        self.inflight += 1
        if self.inflight > 1:
            self._crew.note_meeting()
        self._tell(self.inflight)
        queue.inflight += len(contents)
        return Ask(predictor, contents, top_k, ended, arrived=now, deadline=now + self._request_seconds)

    def _let_go(self, queue: ModelQueue, items: int) -> None:
        self.inflight -= 1
        self._tell(self.inflight)
        queue.inflight -= items

    def _put(self, ask: Ask[Any], queue: ModelQueue) -> None:
        if not ask.contents:
            ask.end([])
            return
        on_loop = self._on_loop(ask.predictor, queue)
        size = self._in_a_turn(queue) if on_loop else queue.batching.max_items
        parts = [Part(ask, start, min(start + size, len(ask.contents))) for start in range(0, len(ask.contents), size)]
        if on_loop:
            self._put_on_loop(queue, parts)
        elif ask.predictor.cheap or self._may_start(ask):
            with self._crew.lock:
                for part in parts:
                    queue.put(part)
                self._crew.wake()
        else:
            for part in parts:
                self._undecoded.put((part, queue))

    def _put_on_loop(self, queue: ModelQueue, parts: Sequence[Part[Any]], *, at_once: bool = False) -> None:
        with self._crew.lock:
            for part in parts:
                queue.put(part)
        (self._answer_now if at_once else self._answer_soon)(queue)

    def _on_loop(self, predictor: Answering[Any], queue: ModelQueue) -> bool:
        if not predictor.cheap or queue.batching.window_ms or queue.cost.batches < KNOWN_BATCHES:
            return False
        bound = BLINK_SECONDS * (LEAVING if queue.on_loop else 1)
        queue.on_loop = queue.cost.seconds(1) < bound
        return queue.on_loop

    def _in_a_turn(self, queue: ModelQueue) -> int:
        """Say how many items the event loop may answer at a time."""
        fixed, each = queue.cost.line()
        most = int((TURN_SECONDS - fixed) / each) if each else queue.batching.max_items
        return min(queue.batching.max_items, max(1, most))

    def _may_start(self, ask: Ask[Any]) -> bool:
        """Whether a thread would begin at once, so that decoding elsewhere first gains nothing."""
        return len(ask.contents) == 1 and self._crew.free

    # On the event loop

    def _answer_soon(self, queue: ModelQueue) -> None:
        if queue.name not in self._due_now:
            self._due_now.add(queue.name)
            asyncio.get_running_loop().call_soon(self._answer_now, queue)

    def _answer_now(self, queue: ModelQueue) -> None:
        self._due_now.discard(queue.name)
        with self._crew.lock:
            batch = queue.take(self._in_a_turn(queue))
        if batch:
            self._finish(queue, self._answered(batch, measured=queue.cost.is_due()))
        if len(queue):
            self._answer_soon(queue)

    def _finish(self, queue: ModelQueue, outcome: Outcome) -> None:
        """End the requests of a batch that was run."""
        for part, answers in outcome.answered:
            part.ask.take(part.start, answers)
        for ask, error in outcome.failed:
            ask.fail(error)
        if outcome.items:
            if outcome.cost_seconds is not None:
                queue.cost.note(outcome.items, outcome.cost_seconds)
            self._observe(
                BatchReport(
                    model=queue.name,
                    items=outcome.items,
                    requests=len(outcome.queue_seconds),
                    queue_seconds=tuple(outcome.queue_seconds),
                    decode_seconds=outcome.decode_seconds,
                    compute_seconds=outcome.compute_seconds,
                )
            )

    def _queue(self, name: str) -> ModelQueue:
        if (queue := self._queues.get(name)) is None:
            with self._crew.lock:
                if (queue := self._queues.get(name)) is None:
                    queue = self._queues[name] = ModelQueue(name, self._batching, self._inflight_limit)
                    self._crew.add(queue)
        return queue

    def _answered(self, batch: Sequence[Part[Any]], *, measured: bool = True) -> Outcome:
        """Run a batch. Whatever happens, each of its requests ends."""
        try:
            return forward_pass.answer(batch, self._request_seconds, measured=measured)
        except Exception as error:
            log.exception("batch lost", requests=len(batch))
            return Outcome(failed=[(part.ask, error) for part in batch])

    # On threads

    def _run(self, queue: ModelQueue, batch: list[Part[Any]]) -> None:
        loop = batch[0].ask.loop
        loop.call_soon_threadsafe(self._finish, queue, self._answered(batch))

    def _decode(self) -> None:
        step_back(COMPUTING)
        while (found := self._undecoded.get()) is not None:
            part, queue = found
            if part.ask.left:
                continue
            if failed := forward_pass.decode([part]):
                part.ask.loop.call_soon_threadsafe(part.ask.fail, failed[0][1])
                continue
            with self._crew.lock:
                queue.put(part)
                self._crew.wake()


def _overloaded(queue: ModelQueue, more: int) -> Overloaded:
    return Overloaded("The prediction queue", max(1, math.ceil(queue.retry_after_seconds(more))))
