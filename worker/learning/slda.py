"""Linear discriminant analysis with a shrunk covariance, solved from class means and their scatter.

A row of the catalog in `closed_form`. Knows nothing of samples that come and go: sums do.
"""

import torch
from torch import Tensor

from worker.learning.increment import Increment, Solver
from worker.learning.scatter import Discriminant, Linear, Scatter, inverted

STRENGTHS = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.97)
DEFAULT = 0.3


def solve(scatter: Scatter, strength: float, balanced: bool = True) -> Discriminant:
    """Score zᵀΛμ_c − ½μ_cᵀΛμ_c with Λ = ((1 − ε)Σ + ε·t·I)⁻¹, t the mean of Σ's diagonal (n·t rounded: `level`).

    (Hayes and Kanan 2020, arXiv 1909.01520.) Σ = Σ_i (z_i − μ_{y_i})(z_i − μ_{y_i})ᵀ / n with the means as they are
    now. A covariance followed sample by sample comes to the same with ΔΣ = n_y/(n_y + 1)·(z − μ_y)(z − μ_y)ᵀ, nothing
    for a class's first sample; n/(n + 1) instead, or a mean of zero for that first sample, does not. Every class has
    the same prior: `balanced` changes nothing. A term all classes share is left out: what is scored is how much nearer
    than μ̄ a mean is.
    """
    square = scatter.within * ((1 - strength) / scatter.total)
    level = scatter.level(scatter.within) / scatter.total
    square.diagonal().add_(strength * level)
    factor = torch.linalg.cholesky(square, upper=True)
    mean = scatter.means.mean(0)
    offsets = scatter.means - mean  # (labels, width)
    weight = inverted(factor, offsets)  # (labels, width)
    bias = -((scatter.means + mean) * weight).sum(1) / 2
    return Discriminant(weight, bias, factor, 1.0)


def later(increment: Increment, strength: float, balanced: bool, solver: Solver) -> Linear:
    """Give what `solve` gives for the scatter now, from the factor of the matrix A₀ it made of the one then.

    With V = V₀ + ΔV and the same level, the matrix now is n₀/n·(A₀ + (1 − ε)/n₀·ΔV). Raises Dear where the level is
    another.
    """
    then, now = increment.then, increment.now
    increment.same_level(then.spread, increment.spread)
    total = then.centres.total
    wanted = increment.places - increment.places.mean(0)
    weight = solver(increment.change * ((1 - strength) / total), wanted) * (now.total / total)
    bias = -((now.means + now.means.mean(0)) * weight).sum(1) / 2
    return Linear(now.label_ids, weight, bias)


def left_out(
    scatter: Scatter, solved: Discriminant, rows: Tensor, targets: Tensor, strength: float, balanced: bool = True
) -> Tensor:
    """Score each row as if it had not been learned: (n, labels), for rows (n, width) of the classes `targets` (n,).

    Without z of class y: μ_y' = μ_y − d/(n_y − 1) and V' = V − a·ddᵀ, with d = z − μ_y and a = n_y/(n_y − 1). With
    q = dᵀΛd, g_c = dᵀΛ(z − μ_c) and a taken on Λ's own scale, (1 − ε)/n, Sherman and Morrison give the distances
    (z − μ_c)ᵀΛ(z − μ_c) + a·g_c²/(1 − a·q), and to its own mean (n_y/(n_y − 1))²·q/(1 − a·q). Exact for a fixed
    shrunk part ε·t·I; classes of one sample are the caller's to leave out.
    """
    z, means = solved.whitened(rows), solved.whitened(scatter.means)  # (n, width), (labels, width)
    index = torch.arange(len(rows))
    d = z - means[targets]
    own = (scatter.weights / (scatter.weights - 1))[targets]
    a = own * (1 - strength) / scatter.total
    q = d.square().sum(1)
    rest = (1 - a * q).clamp(min=1e-6)
    apart = z.square().sum(1)[:, None] - 2 * z @ means.T + means.square().sum(1)  # (n, labels)
    g = (d * z).sum(1)[:, None] - d @ means.T  # (n, labels)
    distances = apart + (a / rest)[:, None] * g.square()
    distances[index, targets] = own.square() * q / rest
    return -distances / 2
