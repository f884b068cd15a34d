"""How sure a head may be: one factor on its logits, fitted on samples as they look when left out.

Called by `strength`. The factor is positive, so no answer changes. Knows nothing of how the logits came about.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

_LEAST, _MOST = math.log(1e-3), math.log(1e2)
_STEPS = 24
_GOLDEN = (math.sqrt(5) - 1) / 2


def fit_scale(logits: Tensor, targets: Tensor, expected: float) -> tuple[float, float]:
    """Find s that minimises the log loss of softmax(s·logits); give s and that loss, a mean over the rows.

    logits (n, labels), targets (n,). The inverse of a temperature (Guo et al. 2017, arXiv 1706.04599), with a normal
    prior of unit deviation on ln s around `expected`, worth one observation: a handful of samples, all right, would
    otherwise call for infinite confidence. The sum is unimodal in ln s; golden-section search, the same every time.
    """
    centre = math.log(expected)

    def objective(position: float) -> float:
        return _loss(logits, targets, position) * len(targets) + (position - centre) ** 2 / 2

    low, high = _LEAST, _MOST
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = objective(left), objective(right)
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = objective(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = objective(right)
    best = left if at_left <= at_right else right
    return math.exp(best), _loss(logits, targets, best)


def _loss(logits: Tensor, targets: Tensor, position: float) -> float:
    return float(functional.cross_entropy(logits * math.exp(position), targets))


def expected_calibration_error(probabilities: Tensor, targets: Tensor, bins: int = 15) -> float:
    """Give Σ_b n_b/n·|accuracy_b − confidence_b| over equal bins of the highest probability (Guo et al. 2017).

    probabilities (n, labels), targets (n,).
    """
    confidence, answers = probabilities.double().max(dim=1)
    right = (answers == targets).double()
    index = (confidence * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, right - confidence)
    return float(gaps.abs().sum() / len(targets))
