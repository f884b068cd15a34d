"""On which side a sample falls: learned, or held out to judge with and never trained on.

Called by the worker's update before anything is trained. Knows no tensors and no SQL.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Protocol

LEARNED_FIRST = 10  # samples of a class that are learned before any of it is held out


class Side(StrEnum):
    LEARN = "learn"
    HOLDOUT = "holdout"
    TEST = "test"  # neither taught nor judging


class Incoming(Protocol):
    """What is asked of a label revision: its class, the digest of its bytes, and its side when it had one before."""

    @property
    def label_id(self) -> int: ...
    @property
    def content_digest(self) -> str: ...
    @property
    def side(self) -> str | None: ...


def fraction(key: bytes, content_digest: str, purpose: str = "holdout") -> float:
    """Map a content to [0, 1), evenly and unpredictably without the model's secret: HMAC-SHA256, first 53 bits.

    Different purposes get independent numbers. The holdout's is of the digest alone.
    """
    message = content_digest if purpose == "holdout" else f"{purpose}:{content_digest}"
    digest = hmac.new(key, message.encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:7], "big") // 8 / 2**53


def split(
    incoming: Iterable[Incoming], *, key: bytes, share: float, learned: Mapping[int, int], test: float = 0.0
) -> list[Side]:
    """Decide the side of each, in order; `share` is held out to judge, `test` only reported on.

    A content seen before keeps its side, in an earlier claim or in this one. Of the others, each class's first
    `LEARNED_FIRST` are learned, counting what the line has `learned` (label id → samples) and what came earlier here;
    after that the hash of the content decides, so that the same bytes always fall the same way.
    """
    counts = Counter(dict(learned))
    seen: dict[str, Side] = {}
    sides = []
    for one in incoming:
        side = Side(one.side) if one.side is not None else seen.get(one.content_digest)
        if side is None:
            few = counts[one.label_id] < LEARNED_FIRST
            side = Side.LEARN if few else _side(fraction(key, one.content_digest), share, test)
            counts[one.label_id] += side is Side.LEARN
        seen[one.content_digest] = side
        sides.append(side)
    return sides


def _side(drawn: float, share: float, test: float) -> Side:
    if drawn < share:
        return Side.HOLDOUT
    return Side.TEST if drawn < share + test else Side.LEARN
