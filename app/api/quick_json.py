"""Predict requests in JSON, read in one pass where nothing is unusual about them.

What this does not take as it is, wrong or only rare, is left to the general reading, which says what is wrong.
"""

import msgspec

from app.api.asked import Asked
from app.api.limits import ITEMS
from app.api.payloads import Payload
from app.networks.features import features_content


class _Vector(msgspec.Struct, forbid_unknown_fields=True):
    features: list[float]


class _Question(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_Vector]
    top_k: int = 5


_DECODER = msgspec.json.Decoder(_Question)
MOST_NUMBERS = 65_536


def quickly_read(body: bytes) -> Asked | None:
    """Give what a body of vectors asks; None if it is anything else."""
    try:
        question = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    vectors = question.inputs
    if not 1 <= len(vectors) <= ITEMS or not 1 <= question.top_k <= 100:
        return None
    if any(len(one.features) > MOST_NUMBERS for one in vectors):
        return None
    return Asked([Payload("features", features_content(one.features)) for one in vectors], question.top_k)
