"""Ridge in extended precision, and a case that is hard for float64: what rounding costs the product's two ways.

Called by `ridge_exact`. numpy's longdouble has 64 bits of mantissa on x86 and no more than float64 on some others.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from worker.learning.closed_form import ClosedFormSettings, discriminant
from worker.learning.kept_factor import KeptFactor
from worker.learning.sums import Sums

CLASSES, WIDTH, DIRECTIONS, SAMPLES, LATER = 10, 256, 40, 600, 20
MEAN, STRENGTH = 100.0, 1e-4


def far_from_zero() -> dict[str, float]:
    """Features far from zero, in few directions, hardly held: the largest |ΔW| to the solution in extended precision.

    Of the whole solve, and of what the kept factor gives after some samples more, one at a time. Float64 weights
    before they are scaled into probabilities.
    """
    numbers = np.random.default_rng(0)
    count = SAMPLES + LATER
    x = numbers.normal(size=(count, DIRECTIONS)) @ numbers.normal(size=(DIRECTIONS, WIDTH)) + MEAN
    y = np.arange(count) % CLASSES
    x[np.arange(count), y] += 2
    settings = ClosedFormSettings("ridge", STRENGTH, balanced=False)
    rows, labels = torch.from_numpy(x), y.tolist()
    sums, kept = Sums(WIDTH, "far"), KeptFactor()
    sums.add(rows[:SAMPLES], labels[:SAMPLES], backbone="far")
    later = kept.linear(sums, settings)
    for place in range(SAMPLES, count):
        sums.add(rows[place : place + 1], [labels[place]], backbone="far")
        later = kept.linear(sums, settings)
    scatter = sums.scatter()
    whole = discriminant(scatter, settings)
    offsets = scatter.means - (scatter.weights @ scatter.means) / scatter.total
    square = scatter.within + (offsets * scatter.weights[:, None]).T @ offsets
    wanted = ridge(x, y, STRENGTH * scatter.level(square))
    found = {"whole solve": (whole.weight, scatter.label_ids), "kept factor": (later.weight, later.label_ids)}
    differences = {
        name: np.abs(weight[[ids.index(label) for label in range(CLASSES)]].numpy() / whole.scale - wanted).max()
        for name, (weight, ids) in found.items()
    }
    return {name: float(f"{value:.1e}") for name, value in differences.items()} | {
        "largest |W|": round(float(np.abs(wanted).max()), 3)
    }


def ridge(x: NDArray[np.float64], y: NDArray[np.int64], penalty: float) -> NDArray[np.longdouble]:
    """Weights (labels, width) of ridge regression on one-hot targets, by Cholesky's factor."""
    features = x.astype(np.longdouble)
    mean = features.mean(0)
    offsets = features - mean
    square = offsets.T @ offsets
    square[np.diag_indices(len(square))] += np.longdouble(penalty)
    right = np.stack([(y == label).sum() * (features[y == label].mean(0) - mean) for label in range(CLASSES)]).T
    for row in range(len(square)):  # square becomes U, A = UᵀU
        square[row, row:] /= np.sqrt(square[row, row])
        square[row + 1 :, row + 1 :] -= np.outer(square[row, row + 1 :], square[row, row + 1 :])
    for row in range(len(square)):
        right[row] = (right[row] - square[:row, row] @ right[:row]) / square[row, row]
    for row in reversed(range(len(square))):
        right[row] = (right[row] - square[row, row + 1 :] @ right[row + 1 :]) / square[row, row]
    return right.T
