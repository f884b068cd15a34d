"""Ridge taught one label at a time, in class order, is the ridge of all samples at once; what is taken out is gone.

2,000 MNIST pictures as raw pixels, 1,000 asked. The batch is solved apart from the product's code, as one least-squares
system by QR decomposition. Differences are of the float64 weights before they are scaled into probabilities. Beside it
a case that is hard for float64, against a solution in extended precision.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import pictures
import torch
from extended import far_from_zero
from findings import show
from torch import Tensor

from worker.learning.closed_form import ClosedFormSettings, discriminant
from worker.learning.sums import Sums

TAUGHT, ASKED, STRENGTH, LIMIT = 2000, 1000, 0.01, 1e-8
SETTINGS = ClosedFormSettings("ridge", STRENGTH, balanced=False)


def batch(x: Tensor, y: Tensor) -> Tensor:
    """Weights and, last, the bias that no strength holds: (labels, width + 1)."""
    scatter = float((x - x.mean(0)).square().sum(0).mean())
    penalty = STRENGTH * 2 ** (round(8 * math.log2(scatter)) / 8)  # relative to the nearest eighth of an octave
    rows = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    held = penalty**0.5 * torch.eye(rows.shape[1], dtype=x.dtype)[:-1]
    targets = torch.nn.functional.one_hot(y, 10).double()
    wanted = torch.cat([targets, torch.zeros(len(held), 10, dtype=x.dtype)])
    found: Tensor = torch.linalg.lstsq(torch.cat([rows, held]), wanted, driver="gels").solution
    return found.T


def head(sums: Sums) -> Tensor:
    scatter = sums.scatter()
    found = discriminant(scatter, SETTINGS)
    order = [scatter.label_ids.index(label) for label in range(10)]
    return torch.cat([found.weight, found.bias[:, None]], dim=1)[order] / found.scale


def one_by_one(x: Tensor, y: Tensor, order: Tensor) -> Sums:
    sums = Sums(x.shape[1], "pixels")
    for index in order.tolist():
        sums.add(x[index : index + 1], [int(y[index])], backbone="pixels")
    return sums


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=pictures.SHARED)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = pictures.load("mnist", arguments.data_dir)
    x, y = data.inputs[:TAUGHT].double() / 255, data.targets[:TAUGHT]
    asked, wanted = data.test_inputs[:ASKED].double() / 255, data.test_targets[:ASKED]
    extra, extra_y = data.inputs[TAUGHT : TAUGHT + 500].double() / 255, data.targets[TAUGHT : TAUGHT + 500].tolist()
    reference = batch(x, y)

    def row(name: str, weights: Tensor) -> dict[str, Any]:
        answers = (asked @ weights[:, :-1].T + weights[:, -1]).argmax(1)
        right = round(100 * float((answers == wanted).double().mean()), 2)
        return {"way": name, "largest |ΔW|": f"{float((weights - reference).abs().max()):.1e}", "accuracy, %": right}

    sums = one_by_one(x, y, y.argsort(stable=True))
    rows = [row("all at once, by QR", reference), row("one by one, in class order", head(sums))]
    shuffled = torch.randperm(TAUGHT, generator=torch.Generator().manual_seed(0))
    rows.append(row("one by one, shuffled", head(one_by_one(x, y, shuffled))))
    sums.add(extra, extra_y, backbone="pixels")
    rows.append(row("500 more samples added", head(sums)))
    sums.subtract(extra, extra_y, backbone="pixels")
    rows.append(row("and taken out again", head(sums)))
    wrong = ((y[:300] + 1) % 10).tolist()
    sums.relabel(x[:300], y[:300].tolist(), wrong, backbone="pixels")
    rows.append(row("300 given a wrong label", head(sums)))
    sums.relabel(x[:300], wrong, y[:300].tolist(), backbone="pixels")
    rows.append(row("and corrected", head(sums)))
    exact = [rows[place] for place in (1, 2, 4, 6)]
    held = all(float(one["largest |ΔW|"]) <= LIMIT and one["accuracy, %"] == rows[0]["accuracy, %"] for one in exact)
    far = far_from_zero()
    held = held and max(far["whole solve"], far["kept factor"]) <= LIMIT
    return show("ridge one by one", rows, held=held, bound=f"|ΔW| ≤ {LIMIT}, accuracy equal", far_from_zero=far)


if __name__ == "__main__":
    sys.exit(main())
