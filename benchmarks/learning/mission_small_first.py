"""A small part first, then the large set: Adam, 28 × 28 through a ResNet-18 whose stem is fitted to small pictures.

Fashion-MNIST. A balanced part is taught first, so that something useful is live soon; then the rest in shares that
grow, older pictures rehearsed. Each step shows the test before and after it and when it was live.
"""

import sys
import time

import torch
from mission_data import SHARED, fashion
from mission_row import Row, run
from mission_school import refusals, school

from app.cli.demo.datasets import FASHION

SHARES = (200, 400, 900)
RECIPE = {
    "head": {"kind": "softmax"},
    "trainable": "all",
    "optimizer": {"kind": "adam", "lr": 0.001},
    "memory": {"kind": "class_balanced", "capacity": 500},
    "early_stopping": {"passes": 3},
    "trigger": {"samples": 1_000_000, "seconds": 86_400},
    "new_classes": {"policy": "accept"},
}


def measure(row: Row) -> None:
    taught, test = fashion(sum(SHARES), 500, folder=row.folder)
    with school() as teaching:
        teaching.create(
            name="fashion",
            input={"kind": "image", "size": 28, "channels": 1},
            network={"architecture": "resnet18"},
            labels=FASHION,
            recipe=row.recipe or RECIPE,
        )
        began, started = time.monotonic(), 0
        for count in SHARES:
            before = teaching.accuracy("fashion", test, FASHION)
            teaching.teach("fashion", taught[started : started + count], FASHION)
            live = round(time.monotonic() - began, 1)
            started += count
            after = teaching.accuracy("fashion", test, FASHION)
            row.found(f"{started} pictures", before=before, after=after, live_after_seconds=live)
            row.must(f"{started} pictures: better than before", after > before)
        row.found("versions", **teaching.verdicts("fashion"), not_promoted_because=refusals(teaching, "fashion"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(run("mission: small first", measure, SHARED))
