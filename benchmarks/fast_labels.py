"""From one label to its effect where the head is solved: 20 labels a second, each posted alone, one client watching.

A label is live when an answer comes from the version that learned it or from a later one. Labels that fall to the
holdout teach nothing and are not timed.
"""

import argparse
import statistics
import sys
import threading
import time
from bisect import bisect_left
from typing import Self

from service import report, service

from app.cli.demo.client import TaughtModel, until
from app.cli.demo.datasets import digits

RATE = 20.0
BEFORE = 300  # digits taught at once before the clock starts, so that strength and scales are settled
MEDIAN_SECONDS, SLOWEST_PERCENT_SECONDS = 1.0, 2.0
RECIPE = {"head": {"kind": "ridge", "projection": 1000}, "trainable": "head", "penalties": []}


class Watch:
    """Asks without pause and remembers when each version was first seen to answer."""

    def __init__(self, model: TaughtModel, probe: object) -> None:
        self._model, self._probe = model, probe
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: list[tuple[int, float]] = []  # versions rising, with the moment
        self.seconds: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def live_at(self, version: int) -> float | None:
        at = bisect_left(self.seen, (version, 0.0))
        return self.seen[at][1] if at < len(self.seen) else None

    def _look(self) -> None:
        while not self._stop.is_set():
            asked = time.perf_counter()
            version = self._model.predict([self._probe])[0].version  # type: ignore[list-item]
            now = time.perf_counter()
            self.seconds.append(now - asked)
            if not self.seen or version > self.seen[-1][0]:
                self.seen.append((version, now))
            self._stop.wait(0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=600)
    arguments = parser.parse_args()
    data = digits()
    with service() as instance, instance.connection() as connection, instance.connection() as second:
        model = TaughtModel(connection, "digits")
        body = {"input": data.input, "network": {"architecture": "linear"}, "recipe": RECIPE}
        model.create({**body, "labels": sorted({item.label for item in data.taught})})
        first = data.taught[:BEFORE]
        model.teach(first, [item.label for item in first], "before")
        until(lambda: not model.unsettled(), 60, "the first labels to be learned")
        stream = data.taught[BEFORE : BEFORE + arguments.labels]
        posted: dict[str, float] = {}
        with Watch(TaughtModel(second, "digits"), data.test[0]) as watch:
            began = time.perf_counter()
            for number, item in enumerate(stream):
                time.sleep(max(0.0, began + number / RATE - time.perf_counter()))
                (sample_id,) = model.teach([item], [item.label], "stream")
                posted[sample_id] = time.perf_counter()
            until(lambda: not model.unsettled(), 60, "the last labels to be learned")
            time.sleep(2)
        took = [
            at - posted[receipt["id"]]
            for receipt in model.receipts(state="learned")
            if receipt["id"] in posted and (at := watch.live_at(receipt["version"])) is not None
        ]
        versions = model.live()
    took.sort()
    median, slowest = statistics.median(took), took[int(0.99 * (len(took) - 1))]
    found = {
        "labels timed": len(took),
        "labels a second": RATE,
        "median, s": round(median, 2),
        "p99, s": round(slowest, 2),
        "versions": versions,
        "prediction p99 meanwhile, ms": round(1000 * sorted(watch.seconds)[int(0.99 * len(watch.seconds))], 1),
    }
    return report("one label to live", found, held=median <= MEDIAN_SECONDS and slowest <= SLOWEST_PERCENT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
