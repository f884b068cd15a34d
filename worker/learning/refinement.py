"""Steps of logistic regression from a discriminant, over all samples that it was solved from.

Called by the fast lane's solving where the recipe asks for it. A discriminant takes all classes for normal and equally
spread; what that costs, a step or two over the samples themselves give back. Nothing is drawn and nothing goes on from
an earlier head, so the outcome is a function of the samples alone, whatever order they came in.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from worker.learning.closed_form import MASKED, ClosedFormSettings, Solved, discriminant
from worker.learning.samples import chunks
from worker.learning.sums import Sums

MOST = 20_000
"""Samples looked at in one step: of more, those whose digests are the smallest, which is at random."""

SHRINKAGE = 0.5
"""The discriminant's ε at the start: the steps give back what this takes from it, and where they walk it damps."""

STEP = 2.0  # −∇² ≼ ½·Σ s_i zzᵀ, so that twice its inverse is the length of a Newton step at least

_CHUNK = 1024


def refined(
    sums: Sums,
    label_ids: Sequence[int],
    features: Mapping[str, Tensor],
    labels: Mapping[str, int],
    *,
    steps: int,
    scale: float,
) -> Solved:
    """Solve the head of `label_ids` and let it take `steps`; features (width,) and label ids are by content digest.

    W ← W + η·Σ_i s_i (e_{y_i} − p_i) z̃_iᵀ Λ and b ← b + η·Σ_i s_i (e_{y_i} − p_i), with z̃ = z − mean, Λ the inverse
    of the shrunk covariance that the start was solved by, one curvature for all steps (Böhning 1992), and s_i =
    1/(C·n_y), so that every class weighs the same. In float64; the rows that come out are float32, as of `solve`.
    """
    weight, bias = torch.zeros(len(label_ids), sums.width), torch.full((len(label_ids),), MASKED)
    if not sums.samples:
        return Solved(weight, bias)
    scatter = sums.scatter()
    found = discriminant(scatter, ClosedFormSettings("slda", strength=SHRINKAGE))
    place = {label: row for row, label in enumerate(scatter.label_ids)}
    digests = [digest for digest in sorted(labels)[:MOST] if digest in features and labels[digest] in place]
    targets = torch.tensor([place[labels[digest]] for digest in digests], dtype=torch.int64)
    mean = (scatter.weights @ scatter.means) / scatter.total
    w, b = found.weight * scale, (found.bias + found.weight @ mean) * scale  # of z̃
    counts = torch.bincount(targets, minlength=len(place)).double().clamp(min=1)
    shares = (1 / counts)[targets] / max(len(set(targets.tolist())), 1)  # sum to 1
    for _ in range(steps if digests else 0):
        slope, level = torch.zeros_like(w), torch.zeros_like(b)
        for some in chunks(list(range(len(digests))), _CHUNK):
            rows = torch.stack([features[digests[index]] for index in some]).double() - mean  # (n, width)
            wrong = functional.one_hot(targets[some], len(place)) - (rows @ w.T + b).softmax(1)  # (n, labels)
            wrong *= shares[some, None]
            slope.addmm_(wrong.T, rows)
            level += wrong.sum(0)
        w = w + STEP * torch.cholesky_solve(slope.T, found.factor, upper=True).T
        b = b + STEP * level
    b = b - w @ mean
    asked = [(row, place[label]) for row, label in enumerate(label_ids) if label in place]
    to, of = [row for row, _ in asked], [row for _, row in asked]
    weight[to], bias[to] = w[of].float(), b[of].float()
    return Solved(weight, bias)
