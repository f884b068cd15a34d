"""Streams that drift: every row is asked first and learned afterwards, one at a time, and the answers are counted.

The fast head as a recipe would spell it: inputs standardised by their first 200 rows, a fixed random layer, slda with
a strength chosen from what was learned, a second head that forgets, and of both the one that answers better serves.
Beside it River's adaptive random forest, and "no change", which repeats the last label and so knows what no service is
told in time. The width and the forgetting of a stream are chosen on the beginning of the *other* streams
(`--select` prints that); nothing of the stream itself is looked at before it is asked. A stream has one order, so a
seed draws the random layer, and the forest's trees.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tables
import torch
from findings import over_seeds, show
from torch import Tensor

from app.networks.projection import Projection
from app.networks.standardize import FROZEN_AFTER, Standardize
from worker.learning.better import Better
from worker.learning.closed_form import ClosedFormSettings, Solved, solve
from worker.learning.fading import Fading
from worker.learning.strength import ROWS, Choice, choose
from worker.learning.sums import Sums

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "streams"
SETTINGS = ClosedFormSettings("slda")
GRID = tuple((width, forgetting) for width in (0, 200) for forgetting in (0.99, 0.999))
CHOSEN = {"elec2": (200, 0.99), "outdoor": (200, 0.99)}  # by --select, on the other streams' beginning
SELECTED = 2000  # rows of a stream that --select looks at, at most
DIGEST = "inputs"


class Fast:
    """The pair of heads: asks, counts who was right, learns, solves anew."""

    def __init__(self, width: int, labels: int, forgetting: float) -> None:
        self.sums, self.fading = Sums(width, DIGEST), Fading(width, DIGEST, forgetting)
        self.labels = labels
        self.better = Better()
        self.choice: Choice | None = None
        self.heads: list[Solved] = []
        self.rows: list[Tensor] = []
        self.learned: list[int] = []

    def ask(self, row: Tensor) -> list[int]:
        """What each head says of (1, width); -1 before anything was learned."""
        if not self.heads:
            return [-1, -1]
        return [int(torch.addmv(head.bias, head.weight, row[0]).argmax()) for head in self.heads]

    def learn(self, row: Tensor, label: int, answers: list[int]) -> None:
        right = [torch.tensor([answer == label]) for answer in answers]
        self.better = self.better.after(right[0], right[1])
        self.sums.add(row, [label], backbone=DIGEST)
        self.fading.add(row, [label], backbone=DIGEST)
        self.rows.append(row)
        self.learned.append(label)
        if self.choice is None or self.choice.due(self.sums):
            step = -(-len(self.rows) // ROWS)
            self.choice = choose(self.sums, SETTINGS, torch.cat(self.rows[::step]), self.learned[::step])
        self.heads = [
            solve(sums, SETTINGS, range(self.labels), strength=self.choice.strength, scale=self.choice.scale)
            for sums in (self.sums, self.fading.sums)
        ]


def prequential(
    name: str, folder: Path, width: int, forgetting: float, *, seed: int = 0, most: int | None = None
) -> dict[str, float]:
    """Ask and teach a stream, or the first `most` of its rows and no more than a fifth; accuracies in percent."""
    numbers, labels = tables.read(name, folder)
    count = len(labels) if most is None else min(most, len(labels) // 5)
    inputs, kinds = torch.tensor(numbers[:count]), sorted(set(labels))
    targets = [kinds.index(label) for label in labels[:count]]
    standardize = Standardize(inputs.shape[1])
    standardize.observe(inputs[:FROZEN_AFTER])
    rows = standardize(inputs)
    if width:
        rows = Projection(inputs.shape[1], width, seed=seed)(rows)
    fast = Fast(rows.shape[1], len(kinds), forgetting)
    right = torch.zeros(count, 4, dtype=torch.float64)  # served, steady, fading, the last label
    began = time.process_time()
    for index, label in enumerate(targets):
        row = rows[index : index + 1]
        answers = fast.ask(row)
        served = answers[fast.better.serving == "fading"]
        last = targets[index - 1] if index else -1
        right[index] = torch.tensor([answer == label for answer in (served, *answers, last)])
        fast.learn(row, label, answers)
    spent = 1000 * (time.process_time() - began) / count
    names = ("fast head", "never forgetting alone", "forgetting alone", "no change")
    accuracies = {key: round(100 * value, 2) for key, value in zip(names, right.mean(0).tolist(), strict=True)}
    return {**accuracies, "ms a row": round(spent, 2)}


def forest(name: str, folder: Path, python: str, seed: int) -> dict[str, float]:
    """River's forest over the same rows; what was measured once is remembered in the folder for temporary files."""
    cache = Path(tempfile.gettempdir()) / f"perennial-forest-{name}-{seed}.json"
    if not cache.is_file():
        script = Path(__file__).with_name("forest.py")
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [python, str(script), name, str(folder), str(seed)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if done.returncode:
            raise SystemExit(f"{done.stderr[-500:]}\nThe forest needs river: name an interpreter that has it: --river.")
        cache.write_text(done.stdout)
    found: dict[str, float] = json.loads(cache.read_text())
    return found


def select(folder: Path) -> int:
    rows: list[dict[str, Any]] = []
    for name in tables.STREAMS:
        for width, forgetting in GRID:
            found = prequential(name, folder, width, forgetting, most=SELECTED)
            rows.append({"stream": name, "width": width, "forgetting": forgetting, **found})
    best = {}
    for name in CHOSEN:
        scores = {
            point: sum(
                row["fast head"] for row in rows if (row["width"], row["forgetting"]) == point and row["stream"] != name
            )
            for point in GRID
        }
        best[name] = max(scores, key=lambda point: scores[point])
    return show("chosen on the beginning of the other streams", rows, held=best == CHOSEN, best=best)


def beside(name: str, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """A stream's row: ours and the forest."""
    width, forgetting = CHOSEN[name]
    other = forest(name, arguments.data_dir, arguments.river, seed)
    return {
        "stream": name,
        "width": str(width),
        "forgetting": str(forgetting),
        "adaptive random forest": round(100 * other["accuracy"], 2),
        **prequential(name, arguments.data_dir, width, forgetting, seed=seed),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=SHARED, help="where elec2.csv.gz and the others lie")
    parser.add_argument("--river", default=sys.executable, help="an interpreter that has river")
    parser.add_argument("--stream", choices=tuple(CHOSEN), action="append", help="only this one; Outdoor decides")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--select", action="store_true", help="choose instead of measuring")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.select:
        return select(arguments.data_dir)
    names = arguments.stream or tuple(CHOSEN)
    rows = over_seeds([[beside(name, arguments, seed) for name in names] for seed in range(arguments.seeds)])
    decided = [row for row in rows if row["stream"] == "outdoor"]
    return show(
        "drifting streams, asked before learned",
        rows,
        held=all(row["fast head"].mean >= row["adaptive random forest"].mean for row in decided),
        bound=f"on Outdoor at least the forest's accuracy, means of {arguments.seeds} seeds",
    )


if __name__ == "__main__":
    sys.exit(main())
