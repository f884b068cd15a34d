"""Three times what the server can do, for a minute: what it still answers, how fast it refuses, how soon it is well.

The load comes by timetable, whatever was answered before; a probe of 40 requests a second beside it tells refusals
from answers. Against a server of this project alone, on this machine, and it ends by itself.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `service`, which all benchmarks share

import on_perennial
import reference
from probe import Probe, Seen, percentile
from processes import resident_bytes
from rows import Row, Running, Setting, running
from service import report
from system import MODELS

TIMES = 3
CONNECTIONS = 512
CAPACITY_CLIENTS = 32
GOODPUT, REFUSAL_MS, GROWTH, RECOVERY_SECONDS = 0.9, 50.0, 1.05, 1.0
AFTER_SECONDS = 5.0


class Memory(threading.Thread):
    """Looks at the memory of the server's processes twice a second until told to stop."""

    def __init__(self, running: Running) -> None:
        super().__init__()
        self._running = running
        self.ended = threading.Event()
        self.seen: list[int] = []

    def run(self) -> None:
        while not self.ended.wait(0.5):
            self.seen.append(resident_bytes(self._running.pids()))

    def growth(self) -> float:
        """The last tenth over the second tenth: the first fills what is there to be filled."""
        tenth = max(1, len(self.seen) // 10)
        return statistics.median(self.seen[-tenth:]) / statistics.median(self.seen[tenth : 2 * tenth])


def recovered_after(seen: list[Seen], ended: float, usual_ms: float) -> float:
    """Seconds from the load's end to the last request that was refused or took more than three times the usual."""
    slow = [one.at - ended for one in seen if one.at > ended and (one.status != 200 or one.milliseconds > 3 * usual_ms)]
    return round(max(slow, default=0.0), 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    row = Row(on_perennial.system(arguments.processes), arguments.model, "fp32")
    with tempfile.TemporaryDirectory(prefix="bench-shared-") as shared:
        wanted = reference.write(Path(shared))[arguments.model]
        with running(row, Setting(arguments.threads), wanted, Path(shared)) as server:
            server.load(CAPACITY_CLIENTS, 3)
            capacity = statistics.median(server.load(CAPACITY_CLIENTS, 4).rps for _ in range(3))
            body = row.system.body(wanted.items[0])
            with Probe(server, body) as probe:
                time.sleep(AFTER_SECONDS)
                usual = percentile([one.milliseconds for one in probe.seen], 0.99)
                memory = Memory(server)
                memory.start()
                started = time.monotonic()
                load = server.load(CONNECTIONS, arguments.seconds, rate=TIMES * capacity)
                ended = time.monotonic()
                memory.ended.set()
                memory.join()
                time.sleep(AFTER_SECONDS)
            during = [one for one in probe.seen if started <= one.at <= ended]
    refusals = [one.milliseconds for one in during if one.status == 429]
    served = [one.milliseconds for one in during if one.status == 200]
    found = {
        "model": arguments.model,
        "capacity, requests/s": round(capacity),
        "offered, requests/s": round(load.answers / load.seconds),
        "goodput, share of capacity": round(load.rps / capacity, 3),
        "refused": load.refused,
        "broken connections": load.broken,
        "refusal p50, ms": percentile(refusals, 0.5),
        "refusal p99, ms": percentile(refusals, 0.99),
        "answer p99, ms": percentile(served, 0.99),
        "answer p99 before, ms": usual,
        "other statuses seen": sorted({one.status for one in probe.seen} - {200, 429}),
        "probes refused, of": [len(refusals), len(during)],
        "memory, end over begin": round(memory.growth(), 3),
        "recovered after, s": recovered_after(probe.seen, ended, usual),
    }
    held = (
        load.rps >= GOODPUT * capacity
        and found["refusal p99, ms"] <= REFUSAL_MS
        and found["memory, end over begin"] <= GROWTH
        and found["recovered after, s"] <= RECOVERY_SECONDS
        and not found["other statuses seen"]
        and load.broken == 0
    )
    return report("overload", found, held=held)


if __name__ == "__main__":
    sys.exit(main())
