"""What a label costs a closed-form head: adding it to the sums, solving, choosing the strength, and memory, per width.

A label alone is measured as the fast lane takes it: sums copied, the label added, the head found, by recipes that
solve it and by one that refines it as `frozen-backbone` does. The mean of 640 such labels holds what comes now and
then: whole solves, and steps over all samples. Beside it the forward pass of MobileNetV2 for a picture of 96 × 96 and
of 224 × 224, which every label needs anyway. All of it processor time of one thread.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from findings import show
from torchvision.models import mobilenet_v2

from app.named_recipes import NAMED
from app.networks.projection import Projection
from app.recipe import Recipe
from worker.learning.closed_form import ClosedFormSettings, solve
from worker.learning.strength import Choice, choose
from worker.learning.sums import Sums
from worker.taught import Taught

RAW, LABELS, SAMPLES, CLAIM, ALONE = 1280, 10, 4000, 32, 640
SETTINGS = ClosedFormSettings("slda")
STRENGTH = 0.2
ROWS = (  # width, whether by a random layer, samples there already
    (64, False, SAMPLES),
    (512, False, SAMPLES),
    (1280, False, 500),
    (1280, False, SAMPLES),
    (1280, False, 9000),
    (2048, False, SAMPLES),
    (1000, True, SAMPLES),
    (2000, True, SAMPLES),
    (4000, True, SAMPLES),
)


def milliseconds(job: Callable[[], object], times: int) -> float:
    """The median of some runs, after one that is not counted."""
    job()
    spent = []
    for _ in range(times):
        began = time.process_time()
        job()
        spent.append(1000 * (time.process_time() - began))
    return statistics.median(spent)


def one_by_one(features: torch.Tensor, labels: list[int], samples: int, steps: int) -> list[float]:
    """Milliseconds for each of the labels after the first `samples`, which come alone."""
    recipe = Recipe.model_validate({**NAMED["frozen-backbone"], "head": {"kind": "slda", "refinement": steps}})
    digests = [f"{index:05d}" for index in range(len(labels))]
    known = dict(zip(digests, features, strict=True))

    def come(taught: Taught, part: slice) -> None:
        named = zip(digests[part], labels[part], strict=True)
        changes, _ = taught.tally.edit({f"sample {digest}": (digest, label) for digest, label in named})
        taught.follow(changes, known)
        taught.heads(recipe, range(LABELS), known if taught.looks_at_samples(recipe) else None)

    taught = Taught.nothing("", features.shape[1], "a", 1.0)
    taught.choice = Choice(STRENGTH, 0.5, samples, min(samples, 2000), None, None)
    come(taught, slice(samples))
    spent = []
    for index in range(samples, len(labels)):
        began = time.process_time()
        before = taught.copy()  # what the lane goes back to if the gate says no
        come(taught, slice(index, index + 1))
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
    for width, projected, samples in ROWS:
        count = samples + ALONE
        labels = torch.randint(LABELS, (count,), generator=generator)
        features = torch.randn(count, RAW if projected else width, generator=generator).relu()
        features[torch.arange(count), labels] += 1
        project = Projection(RAW, width, seed=0) if projected else torch.nn.Identity()
        known = project(features)
        sums = Sums(width, "a")
        sums.add(known[:samples], labels[:samples].tolist(), backbone="a")

        def claim(sums: Sums = sums, project: torch.nn.Module = project, part: torch.Tensor = features[:CLAIM]) -> None:
            sums.add(project(part), [0] * len(part), backbone="a")
            solve(sums, SETTINGS, range(LABELS), strength=STRENGTH)

        began = time.process_time()
        choose(sums, SETTINGS, known[:2000], labels[:2000].tolist())
        chosen = time.process_time() - began
        alone, refined = (one_by_one(known, labels.tolist(), samples, steps) for steps in (0, 2))
        solving = milliseconds(lambda sums=sums: solve(sums, SETTINGS, range(LABELS), strength=STRENGTH), 5)
        together = milliseconds(claim, 5)
        passes = [1 + statistics.fmean(spent) / forward[96] for spent in (alone, refined)]
        held = held and (width > RAW or projected or max(passes) <= 2)
        rows.append(
            {
                "width": f"{width} (random layer)" if projected else width,
                "samples there": samples,
                "label alone, ms: median": round(statistics.median(alone), 2),
                "mean": round(statistics.fmean(alone), 2),
                "slowest": round(max(alone), 2),
                "with its forward pass, in passes (mean)": round(passes[0], 2),
                "refined, ms: median": round(statistics.median(refined), 2),
                "refined: mean": round(statistics.fmean(refined), 2),
                "refined: slowest": round(max(refined), 2),
                "refined, in passes": round(passes[1], 2),
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
