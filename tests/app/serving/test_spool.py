"""A queue that two processes share: in order, whole, within its memory, whoever dies."""

import os
import random
from collections import deque
from collections.abc import Iterator, Sequence

import pytest

from app.serving import spool as spools
from app.serving.spool import HEADER_BYTES, Spool, spool_file


@pytest.fixture
def file() -> Iterator[int]:
    opened = spool_file(1000)
    yield opened
    os.close(opened)


def fill(spool: Spool, size: int) -> int:
    """Put strings of that size until there is no room; how many."""
    put = 0
    while spool.put(bytes([put % 256]) * size):
        put += 1
    return put


def test_what_is_put_is_taken_in_order_and_stays_until_it_is_let_go(file: int) -> None:
    putter, taker = Spool(file), Spool(file)
    assert taker.take(10, 1000) == []
    for one in (b"a", b"", b"ccc"):
        assert putter.put(one)

    assert taker.take(2, 1000) == [b"a", b""]
    assert (putter.depth, putter.done) == (3, 0)
    taker.let_go()
    assert (putter.depth, putter.done) == (1, 2)
    assert taker.take(2, 1000) == [b"ccc"]
    taker.let_go(lost=True)

    assert taker.take(2, 1000) == []
    assert (putter.depth, putter.done, putter.lost) == (0, 3, 1)


def test_a_group_is_bounded_in_number_and_in_bytes(file: int) -> None:
    spool = Spool(file)
    for _ in range(10):
        spool.put(b"x" * 20)

    assert len(spool.take(3, 1000)) == 3
    spool.let_go()
    assert len(spool.take(10, 50)) == 3, "none is begun once there are so many bytes"


def test_it_is_full_when_it_is_and_has_room_again_afterwards(file: int) -> None:
    spool = Spool(file)
    assert fill(spool, 96) == 10  # of 100 bytes each, with their length
    assert not spool.put(b"x" * 1000)

    assert len(spool.take(3, 1000)) == 3
    assert fill(spool, 96) == 0, "what is taken is not let go"
    spool.let_go()
    assert fill(spool, 96) == 2, "it never fills up so that it looks empty"
    assert [one[0] for one in spool.take(100, 1000)] == [3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_what_is_too_long_for_it_never_finds_room(file: int) -> None:
    spool = Spool(file)

    assert not spool.put(b"x" * 997)
    assert spool.put(b"x" * 996)
    assert spool.take(1, 1000) == [b"x" * 996]


def test_a_taker_that_follows_a_dead_one_takes_the_same_group(file: int) -> None:
    putter = Spool(file)
    for number in range(4):
        putter.put(bytes([number]))
    Spool(file).take(3, 1000)
    putter.put(b"later")

    follower = Spool(file)

    assert follower.take(100, 1000) == [b"\0", b"\1", b"\2"]
    follower.let_go()
    assert Spool(file).take(100, 1000) == [b"\3", b"later"]


@pytest.mark.parametrize("died_before", ["_give_back", "_step"])
def test_a_taker_that_died_while_it_let_go_was_through(
    file: int, died_before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    putter = Spool(file)
    for number in range(4):
        putter.put(bytes([number]))
    dying = Spool(file)
    dying.take(3, 1000)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Spool, died_before, die)
        with pytest.raises(KeyboardInterrupt):
            dying.let_go()
    follower = Spool(file)

    assert follower.take(100, 1000) == [b"\3"]
    assert putter.depth == 1


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_put_and_taken_by_turns_comes_out_as_it_went_in(
    file: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "SOFT_BYTES", 300)
    chance = random.Random(seed)
    putter, taker = Spool(file), Spool(file)
    expected: deque[bytes] = deque()
    put = refused = 0
    for _ in range(5000):
        if chance.random() < 0.6:
            one = chance.randbytes(chance.choice((0, 1, 30, 90, 400)))
            if putter.put(one):
                expected.append(one)
                put += 1
            else:
                refused += 1
        else:
            if chance.random() < 0.2:
                taker = Spool(file)
            taken = taker.take(chance.randrange(1, 8), chance.choice((1, 100, 1000)))
            assert taken == [expected[number] for number in range(len(taken))]
            if chance.random() < 0.7:
                taker.let_go()
                for _ in taken:
                    expected.popleft()
        assert putter.depth == len(expected)
    assert put > 500
    assert refused > 50


def test_memory_beyond_what_it_keeps_goes_back_to_the_system() -> None:
    file = spool_file(64 << 20)
    spool = Spool(file)
    block = b"x" * (1 << 20)

    def held() -> int:
        return os.fstat(file).st_blocks * 512

    while spool.put(block):
        pass
    assert held() > 60 << 20
    taken: Sequence[bytes] = [b""]
    while taken:
        taken = spool.take(5, 64 << 20)
        spool.let_go()
    if held() > 60 << 20:
        pytest.skip("this system does not take memory back")
    assert held() < spools.SOFT_BYTES + (4 << 20)

    for _ in range(200):  # by turns it stays small
        assert spool.put(block)
        assert spool.take(5, 64 << 20) == [block]
        spool.let_go()
    assert held() < spools.SOFT_BYTES + HEADER_BYTES + (4 << 20)
    os.close(file)
