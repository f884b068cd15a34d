"""The catalog of penalties. Read by the course; a new kind is one file and one row here."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from worker.learning.ewc import ewc
from worker.learning.failure import LearningFailed
from worker.learning.l2_sp import l2_sp
from worker.learning.lwf import lwf
from worker.learning.own_penalty import own_penalty
from worker.learning.penalty import Origins, Penalty, PenaltySettings

Constructor = Callable[[nn.Module, Origins, PenaltySettings], Penalty]

PENALTIES: Mapping[str, Constructor] = MappingProxyType({"l2_sp": l2_sp, "ewc": ewc, "lwf": lwf, "own": own_penalty})


def make_penalty(network: nn.Module, origins: Origins, settings: PenaltySettings) -> Penalty:
    """Make the penalty of the catalog; raises LearningFailed for a kind it has not."""
    if settings.kind not in PENALTIES:
        raise LearningFailed(f"There is no penalty {settings.kind!r}; choose one of {', '.join(PENALTIES)}.")
    return PENALTIES[settings.kind](network, origins, settings)
