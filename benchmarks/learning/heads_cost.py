"""What a label costs a closed-form head: adding it to the sums, solving, choosing the strength, and memory, per width.

Beside it the forward pass of MobileNetV2 for one picture of 96 × 96, which every label needs anyway. All of it
processor time of one thread.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from findings import show
from torchvision.models import mobilenet_v2

from app.networks.projection import Projection
from worker.learning.closed_form import ClosedFormSettings, solve
from worker.learning.strength import choose
from worker.learning.sums import Sums

RAW, LABELS, SAMPLES, CLAIM = 1280, 10, 4000, 32
SETTINGS = ClosedFormSettings("slda")
WIDTHS = ((64, False), (512, False), (1280, False), (2048, False), (1000, True), (2000, True), (4000, True))


def milliseconds(job: Callable[[], object], times: int) -> float:
    """The median of some runs, after one that is not counted."""
    job()
    spent = []
    for _ in range(times):
        began = time.process_time()
        job()
        spent.append(1000 * (time.process_time() - began))
    return statistics.median(spent)


def main() -> int:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    network = mobilenet_v2().eval()
    picture = torch.randn(1, 3, 96, 96, generator=generator)
    with torch.inference_mode():
        forward = milliseconds(lambda: network(picture), 30)
    rows: list[dict[str, Any]] = []
    for width, projected in WIDTHS:
        labels = torch.randint(LABELS, (SAMPLES,), generator=generator)
        features = torch.randn(SAMPLES, RAW if projected else width, generator=generator).relu()
        features[torch.arange(SAMPLES), labels] += 1
        project = Projection(RAW, width, seed=0) if projected else torch.nn.Identity()
        known = project(features)
        sums = Sums(width, "a")
        sums.add(known, labels.tolist(), backbone="a")

        def one(sums: Sums = sums, project: torch.nn.Module = project, row: torch.Tensor = features[:1]) -> None:
            sums.add(project(row), [0], backbone="a")
            sums.scatter()  # nothing may wait: what one label costs when it comes alone

        def claim(sums: Sums = sums, project: torch.nn.Module = project, part: torch.Tensor = features[:CLAIM]) -> None:
            sums.add(project(part), [0] * len(part), backbone="a")
            solve(sums, SETTINGS, range(LABELS), strength=0.2)

        began = time.process_time()
        choose(sums, SETTINGS, known[:2000], labels[:2000].tolist())
        chosen = time.process_time() - began
        alone = milliseconds(one, 9)
        solving = milliseconds(lambda sums=sums: solve(sums, SETTINGS, range(LABELS), strength=0.2), 5)
        together = milliseconds(claim, 5)
        rows.append(
            {
                "width": f"{width} (random layer)" if projected else width,
                "label alone, ms": round(alone, 2),
                "solve, ms": round(solving, 2),
                f"label of a claim of {CLAIM} with its solve, ms": round(together / CLAIM, 2),
                "the same in forward passes": round(together / CLAIM / forward, 2),
                "least claim for one forward pass a label": math.ceil(solving / (forward - alone))
                if alone < forward
                else "none",
                "choosing the strength (when samples doubled), s": round(chosen, 2),
                "memory, MB": round(sums.nbytes / 1e6, 2),
                "saved, MB": round(sum(tensor.nbytes for tensor in sums.tensors().values()) / 1e6, 2),
            }
        )
    held = all(
        row["the same in forward passes"] <= 1 for (width, _), row in zip(WIDTHS, rows, strict=True) if width <= RAW
    )
    return show(
        "what a label costs the fast head",
        rows,
        held=held,
        bound=f"head and forward pass together at most 2 forward passes up to {RAW} features",
        forward_of_MobileNetV2_ms=round(forward, 2),
    )


if __name__ == "__main__":
    sys.exit(main())
