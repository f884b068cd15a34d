"""The batcher with a predictor that adds numbers: who shares a pass with whom, who waits, who fails."""

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from app.batching import Batching
from app.errors import DeadlineExceeded, InvalidItem, Overloaded
from app.serving.batch_cost import BatchCost
from app.serving.batch_report import BatchReport
from app.serving.batcher import KNOWN_BATCHES, TURN_SECONDS, Batcher
from app.serving.forward_pass import WrongCount


class Sums:
    """Answers each payload, numbers with commas between them, with (version, sum)."""

    def __init__(self, version: int = 1, *, cheap: bool = False) -> None:
        self.key = version
        self.name = "sums"
        self.cheap = cheap
        self.passes: list[list[float]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()

    def decode_many(self, contents: Sequence[bytes]) -> list[Tensor | InvalidItem]:
        if b"broken" in contents:
            raise MemoryError("a decoder ran out of memory")
        bad = InvalidItem("bad", "This is no number.")
        return [bad if one == b"bad" else torch.tensor([float(n) for n in one.split(b",")]) for one in contents]

    def predict(self, items: Sequence[Tensor], top_k: int) -> list[tuple[int, float]]:
        self.began.set()
        assert self.gate.wait(20)
        self.threads.add(threading.current_thread().name)
        self.passes.append([float(item.sum()) for item in items])
        if any(item.sum() < 0 for item in items):
            raise ArithmeticError("no negative sums here")
        if any(item.sum() == 404 for item in items):
            return []
        return [(self.key, float(item.sum())) for item in items]

    def trimmed(self, answer: tuple[int, float], top_k: int) -> tuple[int, float]:
        return answer

    def note(self, items: Sequence[Tensor]) -> None:
        pass


USUAL: dict[str, Any] = {"threads": 1, "decoding_threads": 1, "request_seconds": 20.0}


@pytest.fixture(autouse=True, params=["narrow", "wide"])
def _with_and_without_a_wide_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "wide":
        monkeypatch.setitem(USUAL, "widen", lambda: None)


@contextmanager
def running(**more: Any) -> Iterator[Batcher]:
    batcher = Batcher(**{**USUAL, **more})
    batcher.start()
    try:
        yield batcher
    finally:
        batcher.stop()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 30))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  what is waited for has no event of its own
            await asyncio.sleep(0)


async def held_behind(batcher: Batcher, predictor: Sums, *others: Awaitable[Any], each: int = 1) -> list[Any]:
    """Start `others`, of `each` items, while a pass is held up, so that they gather; give what became of them."""
    predictor.gate.clear()
    predictor.began.clear()
    first = asyncio.ensure_future(batcher.answer(predictor, [b"0"]))
    await asyncio.to_thread(predictor.began.wait, 20)
    rest = [asyncio.ensure_future(other) for other in others]
    await until(lambda: len(batcher._queue("sums")) >= each * len(rest))
    predictor.gate.set()
    await first
    return await asyncio.gather(*rest, return_exceptions=True)


def test_what_comes_while_a_pass_runs_shares_the_next_one_and_each_gets_its_own_answers() -> None:
    async def story() -> None:
        sums = Sums()
        with running() as batcher:
            asks = [batcher.answer(sums, [f"{n}".encode(), f"{n},1".encode()]) for n in range(1, 6)]
            answers = await held_behind(batcher, sums, *asks, each=2)
        assert answers == [[(1, n), (1, n + 1)] for n in range(1, 6)]
        assert [len(one) for one in sums.passes] == [1, 10]

    run(story())


def test_a_lone_request_waits_for_nobody() -> None:
    async def story() -> None:
        sums = Sums()
        with running(batching=Batching()) as batcher:
            assert await batcher.answer(sums, [b"1,2"]) == [(1, 3.0)]
        assert sums.passes == [[3.0]]

    run(story())


def test_versions_are_never_mixed_in_a_pass() -> None:
    async def story() -> None:
        old, new = Sums(1), Sums(2)
        with running() as batcher:
            asks = [batcher.answer(predictor, [b"1"]) for predictor in (old, new, new, old)]
            answers = await held_behind(batcher, old, *asks)
        assert answers == [[(1, 1.0)], [(2, 1.0)], [(2, 1.0)], [(1, 1.0)]]
        assert [len(one) for one in old.passes] == [1, 1, 1]
        assert [len(one) for one in new.passes] == [2]

    run(story())


def test_a_request_larger_than_a_batch_is_split_and_answered_in_order() -> None:
    async def story() -> None:
        sums = Sums()
        with running(batching=Batching(max_items=4)) as batcher:
            answers = await batcher.answer(sums, [str(n).encode() for n in range(10)])
        assert answers == [(1, float(n)) for n in range(10)]
        assert [len(one) for one in sums.passes] == [4, 4, 2]

    run(story())


def test_an_item_that_cannot_be_used_fails_its_own_request_and_is_named() -> None:
    async def story() -> None:
        sums = Sums(cheap=True)  # decoded with its batch
        with running() as batcher:
            asks = [batcher.answer(sums, contents) for contents in ([b"1"], [b"4", b"bad"], [b"2", b"3"])]
            first, bad, last = await held_behind(batcher, sums, *asks)
            alone = await asyncio.gather(batcher.answer(Sums(), [b"bad", b"1"]), return_exceptions=True)
        assert (first, last) == ([(1, 1.0)], [(1, 2.0), (1, 3.0)])
        assert isinstance(bad, InvalidItem)
        assert str(bad).startswith("inputs[1]:")
        assert str(alone[0]).startswith("inputs[0]:")  # decoded aside

    run(story())


@pytest.mark.parametrize("cheap", [True, False])  # decoded with its batch, and aside
def test_a_decoder_that_breaks_fails_its_own_request_and_ends_no_thread(cheap: bool) -> None:
    async def story() -> None:
        sums = Sums(cheap=cheap)
        with running() as batcher:
            asks = [batcher.answer(sums, [one, b"1"]) for one in (b"1", b"broken", b"2")]
            answers = await asyncio.gather(*asks, return_exceptions=True)
            after = await batcher.answer(sums, [b"3"])
        assert answers[0] == [(1, 1.0), (1, 1.0)]
        assert isinstance(answers[1], MemoryError)
        assert answers[2] == [(1, 2.0), (1, 1.0)]
        assert after == [(1, 3.0)]

    run(story())


def test_what_waits_of_a_request_that_left_is_let_go_at_once() -> None:
    async def story() -> None:
        sums = Sums()
        sums.gate.clear()
        with running(request_seconds=0.1, batching=Batching(queue_items=4)) as batcher:
            first = asyncio.ensure_future(batcher.answer(sums, [b"1"]))
            await asyncio.to_thread(sums.began.wait, 20)
            for _ in range(5):
                with pytest.raises(DeadlineExceeded):
                    await batcher.answer(sums, [b"2", b"3"])
            waiting = len(batcher._queue("sums"))
            sums.gate.set()
            await asyncio.gather(first, return_exceptions=True)
        assert waiting == 0

    run(story())


def test_on_the_event_loop_a_large_request_is_answered_in_several_turns() -> None:
    async def story() -> None:
        sums = Sums(cheap=True)
        with running() as batcher:
            queue = batcher._queue("sums")
            for items in (1, 2, 1, 2):
                queue.cost.note(items, items * TURN_SECONDS / 4)
            answers = await batcher.answer(sums, [str(n).encode() for n in range(10)])
        assert answers == [(1, float(n)) for n in range(10)]
        assert sums.threads == {threading.current_thread().name}
        assert len(sums.passes[0]) == 4  # the next ones by what this one was measured to cost

    run(story())


def test_a_pass_that_breaks_fails_only_the_request_that_broke_it() -> None:
    async def story() -> None:
        sums = Sums()
        with running() as batcher:
            answers = await held_behind(batcher, sums, *(batcher.answer(sums, [one]) for one in (b"1", b"-5", b"2")))
        assert answers[0] == [(1, 1.0)]
        assert isinstance(answers[1], ArithmeticError)
        assert answers[2] == [(1, 2.0)]

    run(story())


def test_a_network_that_gives_another_number_of_answers_is_an_error_and_no_shift() -> None:
    async def story() -> None:
        sums = Sums()
        with running() as batcher:
            answers = await held_behind(batcher, sums, *(batcher.answer(sums, [one]) for one in (b"404", b"7")))
        assert isinstance(answers[0], WrongCount)
        assert answers[1] == [(1, 7.0)]

    run(story())


def test_a_request_past_its_deadline_fails_and_is_not_computed() -> None:
    async def story() -> None:
        sums = Sums()
        sums.gate.clear()
        with running(request_seconds=0.1) as batcher:
            first = asyncio.ensure_future(batcher.answer(sums, [b"1"]))
            await asyncio.to_thread(sums.began.wait, 20)
            ended = await asyncio.gather(first, batcher.answer(sums, [b"2"]), return_exceptions=True)
            sums.gate.set()
        assert [type(one) for one in ended] == [DeadlineExceeded, DeadlineExceeded]
        assert sums.passes == [[1.0]]

    run(story())


def test_who_has_left_is_not_computed() -> None:
    async def story() -> None:
        sums = Sums()
        sums.gate.clear()
        leaving = asyncio.Event()
        with running() as batcher:
            first = asyncio.ensure_future(batcher.answer(sums, [b"1"]))
            await asyncio.to_thread(sums.began.wait, 20)
            second = asyncio.ensure_future(batcher.answer(sums, [b"2"], 5, leaving.wait))
            leaving.set()
            assert await second is None
            sums.gate.set()
            assert await first == [(1, 1.0)]
        assert sums.passes == [[1.0]]
        assert batcher.inflight == 0

    run(story())


def test_a_full_queue_refuses_with_a_time_from_the_fitted_cost() -> None:
    async def story() -> None:
        sums = Sums()
        with running(batching=Batching(queue_items=3)) as batcher:
            for _ in range(3):
                batcher._queue("sums").cost.note(1, 2.0)
            sums.gate.clear()
            waiting = [asyncio.ensure_future(batcher.answer(sums, [b"1"])) for _ in range(3)]
            await until(lambda: batcher.inflight == 3)
            with pytest.raises(Overloaded) as refused:
                await batcher.answer(sums, [b"2"])
            with pytest.raises(Overloaded):
                batcher.require_room("sums")
            batcher.require_room("another")
            sums.gate.set()
            await asyncio.gather(*waiting)
            assert refused.value.retry_after_seconds == 8  # four items of two seconds
            batcher.require_room("sums")

    run(story())


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    async def story() -> None:
        with running(batching=Batching(queue_items=3)) as batcher:
            answers = await batcher.answer(Sums(), [b"1"] * 5)
        assert answers == [(1, 1.0)] * 5

    run(story())


def test_a_window_counts_from_the_oldest_arrival_and_ends_early_when_the_batch_is_full() -> None:
    async def story() -> None:
        sums = Sums()
        with running(batching=Batching(max_items=2, window_ms=10_000)) as batcher:
            pair = [asyncio.ensure_future(batcher.answer(sums, [b"1"])) for _ in range(2)]
            await asyncio.gather(*pair)
            batcher.configure("sums", Batching(max_items=64, window_ms=200))
            began = time.perf_counter()
            first = asyncio.ensure_future(batcher.answer(sums, [b"2"]))
            second = asyncio.ensure_future(batcher.answer(sums, [b"3"]))
            await asyncio.gather(first, second)
            took = time.perf_counter() - began
        assert sums.passes == [[1.0, 1.0], [2.0, 3.0]]
        assert took >= 0.2

    run(story())


def test_a_changed_window_holds_for_what_waits_already() -> None:
    async def story() -> None:
        sums = Sums()
        with running(batching=Batching(window_ms=10_000)) as batcher:
            waiting = asyncio.ensure_future(batcher.answer(sums, [b"1"]))
            await until(lambda: len(batcher._queue("sums")) == 1)
            batcher.configure("sums", Batching(window_ms=0))
            assert await waiting == [(1, 1.0)]

    run(story())


def test_what_is_over_in_a_blink_is_answered_on_the_event_loop_joined_by_its_turn() -> None:
    async def story() -> None:
        sums = Sums(cheap=True)
        with running() as batcher:
            for _ in range(KNOWN_BATCHES):
                await batcher.answer(sums, [b"1"])
            # A thread on its way back would take what is put for the event loop.
            await until(lambda: batcher._crew._idle == 1 and not batcher._crew._wide_runs)
            batcher._queue("sums").cost = BatchCost()  # as on a machine where it costs next to nothing
            for _ in range(KNOWN_BATCHES):
                batcher._queue("sums").cost.note(1, 1e-6)
            sums.passes.clear()
            sums.threads.clear()
            answers = await asyncio.gather(*(batcher.answer(sums, [str(n).encode()]) for n in range(20)))
        assert answers == [[(1, float(n))] for n in range(20)]
        assert sums.threads == {threading.current_thread().name}
        assert len(sums.passes) == 1

    run(story())


def test_each_pass_is_reported_once() -> None:
    async def story() -> None:
        sums = Sums()
        reports: list[BatchReport] = []
        with running(observe=reports.append) as batcher:
            await held_behind(batcher, sums, *(batcher.answer(sums, [b"1", b"2"]) for _ in range(2)), each=2)
        assert [(one.model, one.items, one.requests) for one in reports] == [("sums", 1, 1), ("sums", 4, 2)]
        assert [len(one.queue_seconds) for one in reports] == [1, 2]
        assert all(second >= 0 for one in reports for second in one.queue_seconds)

    run(story())


def test_threads_that_wait_cost_nothing() -> None:
    with running(threads=2, decoding_threads=2):
        before = time.process_time()
        threading.Event().wait(0.5)
        assert time.process_time() - before < 0.1


def test_what_waits_is_answered_before_the_batcher_ends() -> None:
    async def story() -> None:
        sums = Sums()
        with running(batching=Batching(window_ms=10_000)) as batcher:
            waiting = asyncio.ensure_future(batcher.answer(sums, [b"1"]))
            await until(lambda: len(batcher._queue("sums")) == 1)
            await asyncio.to_thread(batcher.stop)
            assert await waiting == [(1, 1.0)]

    run(story())


@pytest.fixture
def blink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a batch costs here, it is over in a blink, and many fit into a turn."""
    monkeypatch.setattr("app.serving.batcher.BLINK_SECONDS", 10.0)
    monkeypatch.setattr("app.serving.batcher.TURN_SECONDS", 100.0)


STRANGERS = itertools.count(1000)


def heard_of(
    batcher: Batcher, sums: Sums, *contents: bytes, asker: int | None = None
) -> tuple[bool, list[tuple[Any, Exception | None]]]:
    """Ask in turn; each time another one, unless told who."""
    heard: list[tuple[Any, Exception | None]] = []
    who = next(STRANGERS) if asker is None else asker
    taken = batcher.answer_in_turn(sums, contents, 5, lambda answers, error: heard.append((answers, error)), who)
    return taken, heard


async def known(batcher: Batcher, sums: Sums) -> None:
    """Have the batcher know that the network is over in a blink."""
    for _ in range(KNOWN_BATCHES):
        await batcher.answer(sums, [b"0"])
    sums.passes.clear()


@pytest.mark.usefixtures("blink")
def test_what_is_answered_in_turn_shares_a_pass_without_a_task() -> None:
    async def story() -> None:
        told: list[int] = []
        sums = Sums(cheap=True)
        with running(tell=told.append) as batcher:
            taken, heard = heard_of(batcher, sums, b"1")
            assert not taken, "nothing is known of its cost"
            await known(batcher, sums)
            asked = [heard_of(batcher, sums, b"%d" % n, b"1") for n in range(3)]
            assert all(taken for taken, _ in asked)
            assert batcher.inflight == 3
            other = asyncio.ensure_future(batcher.answer(sums, [b"7"]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [heard for _, heard in asked] == [[([(1, float(n)), (1, 1.0)], None)] for n in range(3)]
            assert await other == [(1, 7.0)]
            assert batcher.inflight == 0
            assert told[-1] == 0
        assert sums.passes[0][:6] == [0.0, 1.0, 1.0, 1.0, 2.0, 1.0]
        assert not heard

    run(story())


@pytest.mark.usefixtures("blink")
def test_who_asks_alone_is_answered_at_once_and_who_meets_others_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.serving.batcher.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("app.serving.crew.QUIET_SECONDS", 0.0)

    async def story() -> None:
        sums = Sums(cheap=True)
        with running() as batcher:
            await known(batcher, sums)
            heard_of(batcher, sums, b"0", asker=1)
            await asyncio.sleep(0)
            for number in (1, 2):
                assert heard_of(batcher, sums, b"%d" % number, asker=1) == (True, [([(1, float(number))], None)])
            assert batcher.inflight == 0
            monkeypatch.setattr("app.serving.batcher.QUIET_SECONDS", 60.0)
            _, other = heard_of(batcher, sums, b"3", asker=2)
            _, again = heard_of(batcher, sums, b"4", asker=1)
            assert not other
            assert not again
            await asyncio.sleep(0)
            assert [other, again] == [[([(1, 3.0)], None)], [([(1, 4.0)], None)]]
        assert sums.passes[-1] == [3.0, 4.0]

    run(story())


@pytest.mark.usefixtures("blink")
def test_in_turn_one_that_is_wrong_fails_alone_and_a_full_queue_refuses() -> None:
    async def story() -> None:
        sums = Sums(cheap=True)
        with running(inflight_limit=3) as batcher:
            await known(batcher, sums)
            _, good = heard_of(batcher, sums, b"1")
            _, bad = heard_of(batcher, sums, b"bad")
            _, negative = heard_of(batcher, sums, b"-1")
            with pytest.raises(Overloaded):
                heard_of(batcher, sums, b"2")
            await asyncio.sleep(0)
            assert good == [([(1, 1.0)], None)]
            assert isinstance(bad[0][1], InvalidItem)
            assert isinstance(negative[0][1], ArithmeticError)
            assert batcher.inflight == 0
            taken, heard = heard_of(batcher, sums)
            assert not taken, "nothing was asked"
            assert not heard

    run(story())


@pytest.mark.usefixtures("blink")
def test_in_turn_is_nothing_that_waits_for_a_window_or_is_larger_than_a_turn() -> None:
    async def story() -> None:
        sums = Sums(cheap=True)
        with running() as batcher:
            await known(batcher, sums)
            assert heard_of(batcher, sums, *[b"1"] * 32)[0]
            assert not heard_of(batcher, sums, *[b"1"] * 1000)[0]
            batcher.configure("sums", Batching(window_ms=1))
            assert not heard_of(batcher, sums, b"1")[0]
            await asyncio.sleep(0)

    run(story())
