"""What a label costs a closed-form head: adding it to the sums, solving, choosing the strength, and memory, per width.

A label alone is measured as the fast lane takes it: sums copied, the label added, the head found. Of 128 such labels
the mean holds the whole solves in between. Beside it the forward pass of MobileNetV2 for one picture of 96 × 96 and of
224 × 224, which every label needs anyway. All of it processor time of one thread.
"""

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
from worker.learning.kept_factor import KeptFactor
from worker.learning.strength import choose
from worker.learning.sums import Sums

RAW, LABELS, SAMPLES, CLAIM, ALONE = 1280, 10, 4000, 32, 128
SETTINGS = ClosedFormSettings("slda")
STRENGTH = 0.2
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


def one_by_one(sums: Sums, known: torch.Tensor, labels: list[int]) -> list[float]:
    """Milliseconds for each of some labels that come alone."""
    kept, spent = KeptFactor(), []
    kept.solve(sums, SETTINGS, range(LABELS), strength=STRENGTH)
    for row, label in zip(known, labels, strict=True):
        began = time.process_time()
        before = sums.copy()  # what the lane goes back to if the gate says no
        sums.add(row[None], [label], backbone="a")
        kept.solve(sums, SETTINGS, range(LABELS), strength=STRENGTH)
        spent.append(1000 * (time.process_time() - began))
        del before
    return spent


def main() -> int:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    network = mobilenet_v2().eval()
    forward = {}
    for size in (96, 224):
        picture = torch.randn(1, 3, size, size, generator=generator)
        with torch.inference_mode():
            forward[size] = milliseconds(lambda picture=picture: network(picture), 30)
    rows: list[dict[str, Any]] = []
    held = True
    for width, projected in WIDTHS:
        count = SAMPLES + ALONE
        labels = torch.randint(LABELS, (count,), generator=generator)
        features = torch.randn(count, RAW if projected else width, generator=generator).relu()
        features[torch.arange(count), labels] += 1
        project = Projection(RAW, width, seed=0) if projected else torch.nn.Identity()
        known = project(features)
        sums = Sums(width, "a")
        sums.add(known[:SAMPLES], labels[:SAMPLES].tolist(), backbone="a")

        def claim(sums: Sums = sums, project: torch.nn.Module = project, part: torch.Tensor = features[:CLAIM]) -> None:
            sums.add(project(part), [0] * len(part), backbone="a")
            solve(sums, SETTINGS, range(LABELS), strength=STRENGTH)

        began = time.process_time()
        choose(sums, SETTINGS, known[:2000], labels[:2000].tolist())
        chosen = time.process_time() - began
        alone = one_by_one(sums, known[SAMPLES:], labels[SAMPLES:].tolist())
        solving = milliseconds(lambda sums=sums: solve(sums, SETTINGS, range(LABELS), strength=STRENGTH), 5)
        together = milliseconds(claim, 5)
        passes = 1 + statistics.fmean(alone) / forward[96]
        held = held and (width > RAW or projected or passes <= 2)
        rows.append(
            {
                "width": f"{width} (random layer)" if projected else width,
                "label alone, ms: median": round(statistics.median(alone), 2),
                "mean": round(statistics.fmean(alone), 2),
                "slowest": round(max(alone), 2),
                "with its forward pass, in passes (mean)": round(passes, 2),
                "whole solve, ms": round(solving, 2),
                f"label of a claim of {CLAIM} with its solve, ms": round(together / CLAIM, 2),
                "choosing the strength (when samples doubled), s": round(chosen, 2),
                "memory, MB": round(sums.nbytes / 1e6, 2),
                "saved, MB": round(sum(tensor.nbytes for tensor in sums.tensors().values()) / 1e6, 2),
            }
        )
    return show(
        "what a label costs the fast head",
        rows,
        held=held,
        bound=f"head and forward pass together at most 2 forward passes up to {RAW} features",
        forward_of_MobileNetV2_ms={size: round(spent, 2) for size, spent in forward.items()},
    )


if __name__ == "__main__":
    sys.exit(main())
