"""From a label to its effect: how long after the answer to a POST does a version that contains it answer?

32 digits are posted at a time; then one client asks without pause until the version that learned them answers.
Updates that the gate refuses are counted and not timed: their samples are in no live version.
"""

import argparse
import statistics
import sys
import time

from service import report, service

from app.cli.demo.client import TaughtModel
from app.cli.demo.datasets import Item, digits

SAMPLES = 32
LIMIT_SECONDS = 5.0
PATIENCE_SECONDS = 30.0


def once(model: TaughtModel, batch: tuple[Item, ...], probe: Item) -> float | None:
    """Seconds from the POST's answer to the first prediction by the version that holds the batch; None if refused."""
    known = model.versions(limit=1)[-1]["version"]
    model.teach(batch, [item.label for item in batch], "benchmark")
    posted = time.perf_counter()
    while time.perf_counter() - posted < PATIENCE_SECONDS:
        answered = model.predict([probe])[0].version
        seconds = time.perf_counter() - posted
        if answered > known:
            return seconds
        if model.versions(limit=1)[-1]["version"] > known:
            newest = model.versions(limit=1)[-1]
            if newest["verdict"] != "promoted":
                return None
    return float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    data = digits()
    with service() as instance, instance.connection() as connection:
        began = time.perf_counter()
        model = TaughtModel(connection, "digits")
        model.create({"input": data.input, "recipe": {"trigger": {"samples": SAMPLES, "seconds": 2}}})
        times, refused = [], 0
        for repeat in range(arguments.repeats):
            batch = data.taught[repeat * SAMPLES : (repeat + 1) * SAMPLES]
            seconds = once(model, batch, data.test[0])
            if repeat == 0:
                first = time.perf_counter() - began
            if seconds is None:
                refused += 1
            else:
                times.append(seconds)
    median = statistics.median(times) if times else float("inf")
    found = {
        "samples a batch": SAMPLES,
        "batches": arguments.repeats,
        "first taught version after creation, s": round(first, 2),
        "median, s": round(median, 2),
        "slowest, s": round(max(times, default=float("inf")), 2),
        "updates not promoted": refused,
    }
    return report("label to live", found, held=median <= LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
