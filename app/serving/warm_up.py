"""The first answers of a version, given before anyone asks: they must be answers, and the next must not be slower.

Called by the PredictorLoader on a loading thread. Goes through the Predictor as requests do, so whatever it builds
on first use is built. Knows nothing of how.
"""

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from app.errors import Corrupt, InvalidItem
from app.log import get_logger
from app.networks.serialization import Pause, go_on
from app.networks.spec import NetworkSpec
from app.recipe import ImageInput
from app.serving.predictor import Predictor
from app.serving.recent_inputs import RecentInputs

log = get_logger(__name__)

SIZES = 3
"""Batch sizes that are tried at most, beside one item alone."""

MADE_UP_SIZE = 8
"""The batch that is tried where nothing was asked yet."""


def warm_up(
    predictor: Predictor,
    recent: RecentInputs,
    *,
    backbone_is_warm: bool = False,
    known_sizes: Collection[int] = (),
    pause: Pause = go_on,
) -> list[int]:
    """Answer a made-up item, then recent inputs at the batch sizes in use; Corrupt if the made-up answer is none.

    Gives the batch sizes that were tried. Those in `known_sizes` are left out: what the processor's libraries
    prepare for a size is there already. Over a backbone that is warm the made-up item alone is enough. Recent inputs
    only warm: whoever sends strange numbers must not keep a version from going live.
    """
    golden = golden_item(predictor.spec)
    require_answers(predictor, [golden])
    if backbone_is_warm:
        return []
    items = [item for item in recent.items() if (item.shape, item.dtype) == (golden.shape, golden.dtype)]
    sizes = [size for size in recent.sizes(SIZES) or [MADE_UP_SIZE] if size not in known_sizes]
    for size in sizes:
        pause()
        if not items:
            require_answers(predictor, [golden] * size)
        else:
            _try(predictor, [items[at % len(items)] for at in range(size)])
    pause()
    return sizes


def require_answers(predictor: Predictor, items: Sequence[Tensor]) -> None:
    """Raise Corrupt unless each item is answered by finite numbers."""
    what = f"version {predictor.version} of {predictor.model!r}"
    if not predictor.labels:
        features = predictor.features(items)
        if features.shape[0] != len(items) or not bool(torch.isfinite(features).all()):
            raise Corrupt(what, "its golden features are not finite, one row an item")
        return
    try:
        answers = predictor.predict(items, len(predictor.labels))
    except InvalidItem as error:  # not a number: there is nothing wrong with the item, which is ours
        raise Corrupt(what, f"its golden answer is not finite: {error.detail}") from error
    found = [len(answer.top) for answer in answers]
    if found != [len(predictor.labels)] * len(items):
        raise Corrupt(what, f"its golden answer scores {found} labels, expected {len(predictor.labels)} for each item")
    if not all(math.isfinite(score) for answer in answers for _, score in answer.top):
        raise Corrupt(what, "its golden answer is not finite")


def golden_item(spec: NetworkSpec) -> Tensor:
    """Make a decoded item that every network of this spec must answer: a grey ramp, or zeros."""
    if isinstance(spec.input, ImageInput):
        shape = (spec.input.channels, spec.input.size, spec.input.size)
        count = shape[0] * shape[1] * shape[2]
        return (torch.arange(count) % 256).to(torch.uint8).reshape(shape)
    return torch.zeros(spec.input.size)


def _try(predictor: Predictor, items: Sequence[Tensor]) -> None:
    try:
        predictor.predict(items, 1) if predictor.labels else predictor.features(items)
    except Exception as error:  # noqa: BLE001  # a user's network may raise anything on what a user sent
        log.warning("recent input not answered", model=predictor.model, version=predictor.version, error=repr(error))
