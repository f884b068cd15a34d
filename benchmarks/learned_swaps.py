"""Swaps under load: 8 clients ask without pause while 20 versions go live and 3 rollbacks are made.

Counted: predictions that failed, and answers by a version that was not live at some time between one second before
the request was sent and its answer. What was live when is taken from the audit log, whose clock is this machine's.
"""

import argparse
import statistics
import sys
import threading
import time
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime
from itertools import cycle

from service import report, service

from app.cli.demo.client import TaughtModel
from app.cli.demo.datasets import Item, digits
from app.cli.instance import Instance
from app.errors import PerennialError

CLIENTS = 8
GRACE_SECONDS = 1.0
PATIENCE_SECONDS = 900.0


@dataclass(frozen=True)
class Seen:
    """One answer: when it was asked for (seconds since 1970), how long it took, and which version gave it."""

    start: float
    seconds: float
    version: int


class Client(threading.Thread):
    """Asks one item after another until told to stop."""

    def __init__(self, instance: Instance, items: tuple[Item, ...], stop: threading.Event) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self.failed: list[str] = []
        self._connection = instance.connection(timeout_seconds=30)
        self._items = cycle(items)
        self._stop_event = stop

    def run(self) -> None:
        model = TaughtModel(self._connection, "digits")
        while not self._stop_event.is_set():
            start, clock = time.time(), time.perf_counter()
            try:
                answer = model.predict([next(self._items)])[0]
            except PerennialError as error:
                self.failed.append(str(error))
            else:
                self.seen.append(Seen(start, time.perf_counter() - clock, answer.version))
        self._connection.close()


def moves(model: TaughtModel) -> list[tuple[float, int]]:
    """When which version became live, oldest first, from the audit log."""
    found = []
    for event in model.events():
        detail = event["detail"]
        if event["kind"] == "model.created":
            number = 1
        elif event["kind"] in ("version.promoted", "version.forced", "version.rolled_back"):
            number = detail.get("to", detail.get("version"))
        else:
            continue
        found.append((datetime.fromisoformat(event["at"]).timestamp(), number))
    return sorted(found)


def was_live(seen: Seen, pointer: list[tuple[float, int]]) -> bool:
    """Whether the version was live at some time in [start − 1 s, end]."""
    times = [at for at, _ in pointer]
    first = max(0, bisect_right(times, seen.start - GRACE_SECONDS) - 1)
    last = bisect_right(times, seen.start + seen.seconds + 0.001)  # the log's clock counts milliseconds
    return seen.version in {number for _, number in pointer[first:last]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--rollbacks", type=int, default=3)
    arguments = parser.parse_args()
    data = digits(test=100)
    stop = threading.Event()
    with service() as instance, instance.connection() as connection:
        model = TaughtModel(connection, "digits")
        model.create({"input": data.input, "recipe": {"trigger": {"samples": 16, "seconds": 1}}})
        clients = [Client(instance, data.test, stop) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        rollbacks: list[int] = []
        stragglers = swaps = 0
        deadline = time.monotonic() + PATIENCE_SECONDS
        batches = cycle([data.taught[start : start + 24] for start in range(0, len(data.taught), 24)])
        try:
            while swaps < arguments.swaps and time.monotonic() < deadline:
                batch = next(batches)
                model.teach(batch, [item.label for item in batch], "benchmark")
                time.sleep(1.0)
                swaps = len(moves(model)) - 1 - len(rollbacks)
                if len(rollbacks) < arguments.rollbacks and swaps >= (len(rollbacks) + 1) * arguments.swaps // 4:
                    answer = model.roll_back("benchmark", samples="requeue")
                    rollbacks.append(answer["took_ms"])
                    stragglers += len(answer["stragglers"])
            time.sleep(2.0)
        finally:
            stop.set()
            for client in clients:
                client.join()
        pointer = moves(model)
    answers = [seen for client in clients for seen in client.seen]
    failed = [words for client in clients for words in client.failed]
    wrong = [seen for seen in answers if not was_live(seen, pointer)]
    milliseconds = sorted(1000 * seen.seconds for seen in answers)
    found = {
        "clients": CLIENTS,
        "swaps": swaps,
        "rollbacks": len(rollbacks),
        "rollback, ms": rollbacks,
        "stragglers": stragglers,
        "predictions": len(answers),
        "versions that answered": len({seen.version for seen in answers}),
        "failed": len(failed),
        "by a version not live": len(wrong),
        "median, ms": round(statistics.median(milliseconds), 1),
        "p99, ms": round(milliseconds[int(0.99 * len(milliseconds))], 1),
        "first failures": failed[:3],
    }
    enough = swaps >= arguments.swaps and len(rollbacks) == arguments.rollbacks
    return report("swap under load", found, held=enough and not failed and not wrong)


if __name__ == "__main__":
    sys.exit(main())
