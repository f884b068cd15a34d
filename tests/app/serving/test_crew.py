"""Which thread runs what: one with all cores for what comes alone, the others for requests that meet."""

import asyncio
import math
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from app.batching import Batching
from app.serving.batcher import Batcher
from app.serving.crew import BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS, MANY, Tries
from app.serving.width import widening
from tests.app.serving.test_batcher import Sums, run, until

WIDE = "inference-wide"


@pytest.fixture
def widened() -> list[str]:
    """The names of the threads that were given all cores."""
    return []


@pytest.fixture
def batcher(widened: list[str]) -> Iterator[Batcher]:
    made = Batcher(
        threads=2,
        decoding_threads=1,
        request_seconds=20.0,
        widen=lambda: widened.append(threading.current_thread().name),
    )
    made._crew._tries.note_narrow(("sums", 1), 60.0)  # one input is known, and anything is soon enough
    made.start()
    yield made
    made.stop()


def rests(batcher: Batcher) -> bool:
    crew = batcher._crew
    return crew._wide_there and not crew._wide_runs and not crew._running


async def met(batcher: Batcher, first: Sums, second: Sums) -> None:
    """Ask the second while the first is in work."""
    first.gate.clear()
    asks = [asyncio.ensure_future(batcher.answer(first, [b"1"]))]
    await asyncio.to_thread(first.began.wait, 20)
    asks.append(asyncio.ensure_future(batcher.answer(second, [b"2"])))
    await until(lambda: len(batcher._queue("sums")) > 0 or second.began.is_set())
    assert not second.began.is_set(), "nothing runs beside a pass over all cores"
    first.gate.set()
    assert await asyncio.gather(*asks) == [[(1, 1.0)], [(2, 2.0)]]


def test_requests_that_come_one_by_one_get_all_cores(batcher: Batcher, widened: list[str]) -> None:
    async def story() -> None:
        sums = Sums()
        for n in range(20):
            await until(lambda: rests(batcher))  # the thread may still be on its way back
            assert await batcher.answer(sums, [f"{n}".encode()]) == [(1, float(n))]
        assert sums.threads == {WIDE}

    run(story())
    assert widened == [WIDE]


def test_what_comes_in_meanwhile_waits_and_is_run_by_the_others_until_it_is_quiet_again(batcher: Batcher) -> None:
    async def story() -> None:
        await until(lambda: rests(batcher))
        first, second, later, last = Sums(1), Sums(2), Sums(3), Sums(4)
        await met(batcher, first, second)
        assert first.threads == {WIDE}
        assert WIDE not in second.threads
        await batcher.answer(later, [b"3"])
        assert WIDE not in later.threads, "requests have just met"
        batcher._crew._quiet_at = -math.inf  # as after a while
        await until(lambda: rests(batcher))
        await batcher.answer(last, [b"4"])
        assert last.threads == {WIDE}

    run(story())


def test_a_window_holds_for_a_lone_request_too(batcher: Batcher) -> None:
    async def story() -> None:
        batcher.configure("sums", Batching(max_items=2, window_ms=20))
        sums = Sums()
        assert await batcher.answer(sums, [b"1"]) == [(1, 1.0)]
        assert await batcher.answer(sums, [b"1", b"2"]) == [(1, 1.0), (1, 2.0)]

    run(story())


def test_it_ends_when_all_is_answered(widened: list[str]) -> None:
    async def story() -> None:
        batcher = Batcher(threads=1, decoding_threads=1, request_seconds=20.0, widen=lambda: None)
        batcher.start()
        sums = Sums()
        sums.gate.clear()
        asks = [asyncio.ensure_future(batcher.answer(sums, [b"1"])) for _ in range(3)]
        await asyncio.to_thread(sums.began.wait, 20)
        stopping = asyncio.ensure_future(asyncio.to_thread(batcher.stop))
        sums.gate.set()
        assert await asyncio.gather(*asks) == [[(1, 1.0)]] * 3
        await stopping

    run(story())


def test_the_first_of_each_size_is_run_on_one_core_to_compare_with(batcher: Batcher) -> None:
    async def story() -> None:
        sums = Sums()
        await until(lambda: rests(batcher))
        await batcher.answer(sums, [b"1", b"2"])
        assert WIDE not in sums.threads
        batcher._crew._tries.note_narrow(("sums", 2), 60.0)  # as if it had taken long
        await until(lambda: rests(batcher))
        await batcher.answer(sums, [b"1", b"2"])
        assert WIDE in sums.threads

    run(story())


def test_where_other_processes_are_on_the_cores_wide_passes_are_tried_ever_more_seldom() -> None:
    tries, now, one = Tries(), 100.0, ("a", 1)
    assert not tries.know(one)
    tries.note_narrow(one, 0.004)
    assert tries.know(one)
    tries.note_wide(one, 0.0026, now)
    tries.note_wide(one, 0.012, now)
    assert tries.next_at < now, "one that took its time is no reason yet"
    pauses = []
    for _ in range(12):
        tries.note_wide(one, 0.080, now)
        pauses.append(tries.next_at - now)
        now = tries.next_at
    assert pauses[:3] == pytest.approx([BACK_OFF_SECONDS, 2 * BACK_OFF_SECONDS, 4 * BACK_OFF_SECONDS])
    assert pauses[-1] == pytest.approx(LONGEST_BACK_OFF_SECONDS)
    for _ in range(MANY):
        tries.note_wide(one, 0.0026, now)
    tries.note_wide(one, 1.0, now)
    assert tries.next_at - now == pytest.approx(BACK_OFF_SECONDS)


def test_one_thread_gets_more_torch_threads_and_the_others_keep_theirs() -> None:
    code = """
import threading, torch
from app.serving.crew import BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS, MANY, Tries
from app.serving.width import widening
torch.set_num_threads(1)
told = {}
def of(name, *calls):
    def look():
        for call in calls:
            call()
        told[name] = torch.get_num_threads()
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
of("wide", widening(1, 2, torch.device("cpu")))
of("other")
print(told["wide"], told["other"], torch.get_num_threads())
"""
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1"}
    )
    assert told.stdout.split() == ["2", "1", "1"]


@pytest.mark.parametrize(
    ("began", "threads", "wide", "device"),
    [("1", 2, 2, "cpu"), ("2", 1, 2, "cpu"), (None, 1, 2, "cpu"), ("1", 1, 2, "cuda")],
)
def test_no_thread_is_widened_where_it_gains_nothing(
    monkeypatch: pytest.MonkeyPatch, began: str | None, threads: int, wide: int, device: str
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if began is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", began)
    assert widening(threads, wide, torch.device(device)) is None
