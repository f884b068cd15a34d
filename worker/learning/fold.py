"""Which samples of an update judge it from the inside: the early-stopping fold.

Called by the learner. The fold is not the holdout: it decides when to stop, never whether to publish (but for a first
version, which has nothing else).
"""

import math
from collections import defaultdict

from torch import Tensor

MOST = 200
"""Samples in a fold at most. More tell one pass from the next no better, and each is answered after every pass."""


def early_stopping_fold(targets: Tensor, keys: Tensor, share: float) -> list[int]:
    """Choose round(share · n) samples, at most 200, spread over the classes in proportion, smallest keys first.

    The classes' quotas are apportioned by largest remainder; a class always keeps one sample to learn from. As keys
    stay with their samples, a class's smallest keys are much the same samples from one update to the next: rehearsed
    samples that judge an update were not learned by heart in an earlier one.
    targets (n,), keys (n,); the indices come in rising order.
    """
    share = min(share, MOST / max(len(targets), 1))
    members: dict[int, list[int]] = defaultdict(list)
    for index, target in enumerate(targets.tolist()):
        members[target].append(index)
    order = keys.tolist()
    for indices in members.values():
        indices.sort(key=lambda index: (order[index], index))
    quotas = {target: min(math.floor(share * len(indices)), len(indices) - 1) for target, indices in members.items()}
    missing = round(share * len(order)) - sum(quotas.values())
    # Equal remainders go by the smallest key left, so that no class is preferred for its number.
    for target in sorted(members, key=lambda t: (-(share * len(members[t]) % 1), order[members[t][quotas[t]]])):
        if missing <= 0:
            break
        if quotas[target] < len(members[target]) - 1:
            quotas[target] += 1
            missing -= 1
    return sorted(index for target, quota in quotas.items() for index in members[target][:quota])
