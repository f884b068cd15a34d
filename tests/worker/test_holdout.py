"""Which side a sample falls on."""

import hashlib
import hmac
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.holdout import LEARNED_FIRST, Side, fraction, split

KEY = b"a model's secret"


@dataclass(frozen=True)
class Arrived:
    label_id: int
    content_digest: str
    side: str | None = None


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def many(count: int, label: int = 1, start: int = 0) -> list[Arrived]:
    return [Arrived(label, digest(start + number)) for number in range(count)]


def test_the_fraction_is_the_keyed_hash_of_the_digest() -> None:
    expected = int.from_bytes(hmac.new(KEY, digest(7).encode(), hashlib.sha256).digest(), "big") / 2**256
    assert fraction(KEY, digest(7)) == pytest.approx(expected)
    assert fraction(b"another", digest(7)) != fraction(KEY, digest(7))
    assert fraction(KEY, digest(7), "fold") != fraction(KEY, digest(7))


@given(st.binary(), st.text(max_size=64))
def test_the_fraction_lies_in_the_half_open_unit_interval(key: bytes, content: str) -> None:
    assert 0 <= fraction(key, content) < 1


def test_the_first_ten_of_each_class_are_learned() -> None:
    sides = split(many(LEARNED_FIRST) + many(LEARNED_FIRST, label=2, start=100), key=KEY, share=0.5, learned={})
    assert set(sides) == {Side.LEARN}


def test_what_the_line_has_learned_counts_towards_the_first_ten() -> None:
    sides = split(many(200), key=KEY, share=0.5, learned={1: LEARNED_FIRST})
    assert sides == [Side.HOLDOUT if fraction(KEY, one.content_digest) < 0.5 else Side.LEARN for one in many(200)]
    assert 70 < sides.count(Side.HOLDOUT) < 130


def test_a_content_seen_before_keeps_its_side_whatever_the_hash_says() -> None:
    arrived = [Arrived(1, digest(n), "holdout") for n in range(20)] + [
        Arrived(1, digest(n), "learn") for n in range(20, 40)
    ]
    assert split(arrived, key=KEY, share=0.5, learned={}) == [Side.HOLDOUT] * 20 + [Side.LEARN] * 20


def test_the_same_bytes_twice_in_a_claim_fall_on_the_same_side_and_count_once() -> None:
    arrived = many(LEARNED_FIRST - 1) + [Arrived(1, digest(0))] * 50 + many(1, start=500)
    sides = split(arrived, key=KEY, share=0.999, learned={})
    assert set(sides) == {Side.LEARN}  # the 50 repeats took no place among the first ten


def test_nothing_is_held_out_when_the_share_is_zero() -> None:
    assert set(split(many(300), key=KEY, share=0.0, learned={1: 1000})) == {Side.LEARN}


@given(st.integers(0, 30), st.floats(0, 0.5))
def test_how_the_stream_is_cut_into_claims_changes_nothing(cut: int, share: float) -> None:
    arrived = many(30)
    whole = split(arrived, key=KEY, share=share, learned={})
    first = split(arrived[:cut], key=KEY, share=share, learned={})
    rest = split(arrived[cut:], key=KEY, share=share, learned={1: first.count(Side.LEARN)})
    assert first + rest == whole
