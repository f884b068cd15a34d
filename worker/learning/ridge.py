"""Regularized least squares on one-hot targets, solved from class means and their scatter.

A row of the catalog in `closed_form`. Knows nothing of samples that come and go: sums do.
"""

import torch
from torch import Tensor

from worker.learning.increment import Increment, Solver
from worker.learning.scatter import Centres, Discriminant, Linear, Scatter, inverted

STRENGTHS = (1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
DEFAULT = 0.3

_LEAST_RESIDUAL = 0.05  # share of the targets' variance: interpolation is no certainty


def solve(scatter: Scatter, strength: float, balanced: bool) -> Discriminant:
    """Minimise Σ_i w_i ‖e_{y_i} − W z_i − b‖² + λ‖W‖², the bias b unpenalised.

    With m_c the summed weight of class c, m = Σ m_c, μ̄ = Σ m_c μ_c / m, and the weighted scatter around the means V,
    the normal equations become (V + Σ_c m_c (μ_c − μ̄)(μ_c − μ̄)ᵀ + λI) w_c = m_c (μ_c − μ̄), b_c = m_c/m − w_cᵀμ̄:
    the bracket is Σ w_i (z_i − μ̄)(z_i − μ̄)ᵀ + λI, taken apart at the means. λ is `strength` times the mean of that
    scatter's diagonal, rounded (`level`).

    Unbalanced, w_i = 1: m_c = n_c and V is the scatter as summed, so this is ordinary ridge regression to the last
    digit. Balanced, w_i = n/(C·n_c) (class weights as in AIR, Fang et al. 2024, arXiv 2408.10349), so that m_c = n/C;
    V = Σ_c w_c V_c would need a scatter for every class, C squares instead of one. Were all classes spread alike,
    V_c = n_c/n · V_pooled, as linear discriminant analysis has it, then Σ_c w_c V_c = Σ_c (n/C)/n · V_pooled =
    V_pooled: the one square suffices. Only this last step is an assumption, and with equal counts it is none.
    """
    total, mass = scatter.total, _mass(scatter, balanced)
    mean = (mass @ scatter.means) / total  # (width,)
    offsets = scatter.means - mean  # (labels, width)
    targets = offsets * mass[:, None]  # (labels, width)
    square = torch.addmm(scatter.within, targets.T, offsets)
    penalty = strength * scatter.level(square)
    square.diagonal().add_(penalty)
    factor = torch.linalg.cholesky(square, upper=True)
    weight = inverted(factor, targets)
    bias = mass / total - weight @ mean
    scale = _scale(total, mass, weight, targets, penalty)
    return Discriminant(weight * scale, bias * scale, factor, scale)


def later(increment: Increment, strength: float, balanced: bool, solver: Solver) -> Linear:
    """Give what `solve` gives for the scatter now, from the factor of the matrix it made of the one then.

    The classes' own term changes too, in the directions of the means: by Tᵀ·diag(m)·T less the same then, T the places
    of μ_c − μ̄. Raises Dear where the level is another.
    """
    then, now = increment.then, increment.now
    mass_then, mass = _mass(then.centres, balanced), _mass(now, balanced)
    places_then = torch.eye(len(mass_then), len(increment.directions), dtype=torch.float64)
    at_then, at = _offsets(places_then, mass_then), _offsets(increment.places, mass)  # (labels, directions)
    change = increment.change + (at.T * mass) @ at - (at_then.T * mass_then) @ at_then
    apart_then, apart = _offsets(then.centres.means, mass_then), _offsets(now.means, mass)  # (labels, width)
    width = apart.shape[1]
    spread_then = then.spread + float(mass_then @ apart_then.square().sum(1)) / width
    spread = increment.spread + float(mass @ apart.square().sum(1)) / width
    penalty = strength * increment.same_level(spread_then, spread)
    weight = solver(change, at * mass[:, None])
    bias = mass / now.total - weight @ ((mass @ now.means) / now.total)
    scale = _scale(now.total, mass, weight, apart * mass[:, None], penalty)
    return Linear(now.label_ids, weight * scale, bias * scale)


def left_out(
    scatter: Scatter, solved: Discriminant, rows: Tensor, targets: Tensor, strength: float, balanced: bool
) -> Tensor:
    """Score each row as if it had not been learned: (n, labels), for rows (n, width) of the classes `targets` (n,).

    Exact for fixed λ, and balanced for fixed m. Classes of one sample are the caller's to leave out.
    """
    if balanced:
        return _left_out_balanced(scatter, solved, rows, targets)
    return _left_out_plain(scatter, solved, rows, targets)


def _left_out_plain(scatter: Scatter, solved: Discriminant, rows: Tensor, targets: Tensor) -> Tensor:
    """Give y − e/(1 − h) with the leverage h = 1/n + (z − μ̄)ᵀA⁻¹(z − μ̄) (Allen's PRESS, 1974)."""
    mean = (scatter.weights @ scatter.means) / scatter.total
    leverage = 1 / scatter.total + solved.whitened(rows - mean).square().sum(1)
    wanted = torch.zeros(len(rows), len(scatter.label_ids), dtype=torch.float64)
    wanted[torch.arange(len(rows)), targets] = solved.scale
    errors = wanted - (rows @ solved.weight.T + solved.bias)
    return wanted - errors / (1 - leverage)[:, None]


def _left_out_balanced(scatter: Scatter, solved: Discriminant, rows: Tensor, targets: Tensor) -> Tensor:
    """Take z of class y out of its mean and of the pooled scatter.

    With d = z − μ_y, η = 1/(n_y − 1), u_c = μ_c − μ̄ and C classes of mass m: μ_y' = μ_y − ηd, hence
    u_c' = u_c + α_c d with α_c = η/C − η·[c = y], and A' = A + (mη²(1 − 1/C) − 1 − η)·ddᵀ − mη·(d u_yᵀ + u_y dᵀ):
    two directions, V = [d, u_y], A' = A + V E Vᵀ. Woodbury's identity, with products p·q = pᵀA⁻¹q of x = z − μ̄, d and
    the u_c alone, gives (z − μ̄')ᵀA'⁻¹ m u_c' + 1/C.
    """
    count, mass = len(scatter.label_ids), scatter.total / len(scatter.label_ids)
    mean = scatter.means.mean(0)
    x, u = solved.whitened(rows - mean), solved.whitened(scatter.means - mean)  # (n, width), (labels, width)
    index = torch.arange(len(rows))
    xu, uu = x @ u.T, (u @ u.T)[targets]  # (n, labels): x·u_c, u_y·u_c
    xx, xy, yy = x.square().sum(1), xu[index, targets], uu[index, targets]  # (n,)
    eta = 1 / (scatter.weights - 1)[targets]
    beta = eta / count
    alpha = beta[:, None].expand(-1, count).clone()
    alpha[index, targets] -= eta  # (n, labels)
    du, dd, dy = xu - uu, xx - 2 * xy + yy, xy - yy
    moved_d = xx - xy + beta * dd  # (z − μ̄')·d
    moved_u = xu + beta[:, None] * du  # (z − μ̄')·u_c
    plain = moved_u + alpha * moved_d[:, None]
    ahead = torch.stack([moved_d, moved_u[index, targets]], dim=1)  # (n, 2) (z − μ̄')ᵀA⁻¹V
    behind = torch.stack([du + alpha * dd[:, None], uu + alpha * dy[:, None]], dim=1)  # (n, 2, labels) VᵀA⁻¹u'
    gram = torch.stack([torch.stack([dd, dy], 1), torch.stack([dy, yy], 1)], 1)  # (n, 2, 2) VᵀA⁻¹V
    change = torch.zeros_like(gram)
    change[:, 0, 0] = mass * eta**2 * (1 - 1 / count) - 1 - eta
    change[:, 0, 1] = change[:, 1, 0] = -mass * eta
    inner = torch.linalg.solve(torch.eye(2, dtype=torch.float64) + change @ gram, change @ behind)  # (n, 2, labels)
    scores = mass * (plain - (ahead[:, None] @ inner)[:, 0])
    left: Tensor = (scores + 1 / count) * solved.scale
    return left


def _mass(centres: Centres, balanced: bool) -> Tensor:
    return torch.full_like(centres.weights, centres.total / len(centres.weights)) if balanced else centres.weights


def _offsets(means: Tensor, mass: Tensor) -> Tensor:
    return means - (mass @ means) / mass.sum()


def _scale(total: float, mass: Tensor, weight: Tensor, targets: Tensor, penalty: float) -> float:
    """Give 1/σ², σ² the residual variance: Σ‖e‖² = Σ‖ỹ‖² − tr(W T) − λ‖W‖² with T = Σ z̃ỹᵀ, over m·(C − 1).

    The residuals of C one-hot targets sum to zero, so they live in C − 1 directions. For two normal classes least
    squares divided by σ² has the log-odds' own slope.
    """
    if len(mass) < 2:
        return 1.0
    spread = total - float(mass.square().sum()) / total
    residual = spread - float((weight * targets).sum()) - penalty * float(weight.square().sum())
    return total * (len(mass) - 1) / max(residual, _LEAST_RESIDUAL * spread)
