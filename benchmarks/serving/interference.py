"""Predictions while an update runs, beside predictions while none does; and the update beside one on an idle machine.

ResNet-18 on JPEGs of 64 × 64 unless told otherwise, random weights, default settings. Each round holds a constant
rate, a share of the capacity measured just before: without an update, with one, and without again, for as long as the
update took in all, since the machine swings; and then lets the same update run alone. Bounds: p99 during ÷ p99 without
≤ 1.5, update under load ÷ alone ≤ 4, medians over the rounds.
"""

import argparse
import asyncio
import base64
import io
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import uvloop
from open_loop import Load, Request, Target, capacity
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from service import report, service

from app.cli.demo.client import TaughtModel, in_parts
from app.cli.instance import Instance

LABELS = ("red", "green", "blue", "grey")
PATIENCE_SECONDS = 240.0
SETTLING_SECONDS = 1.0  # of a load that just began
SWAPPING_SECONDS = 2.0  # after an update's end, the new version is loaded
FORGOTTEN_SECONDS = 2.0  # after the last prediction, an update that begins has none to be considerate of


def pictures(count: int, size: int, numbers: random.Random) -> list[tuple[bytes, str]]:
    """JPEGs whose tint tells the label: easily learned, so that the gate lets each update through."""
    made = []
    for index in range(count):
        tint = index % len(LABELS)
        small = Image.frombytes("RGB", (8, 8), numbers.randbytes(8 * 8 * 3)).resize((size, size), Image.BICUBIC)
        colour = tuple(200 if tint in (band, 3) else 60 for band in range(3))
        written = io.BytesIO()
        Image.blend(small, Image.new("RGB", (size, size), colour), 0.5).save(written, "JPEG", quality=90)
        made.append((written.getvalue(), LABELS[tint]))
    return made


@dataclass(frozen=True)
class Span:
    """From when to when something ran, seconds since 1970."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


class Updates:
    """The model's updates, as the service's log tells them: reading a file costs the server nothing."""

    def __init__(self, instance: Instance) -> None:
        self._log = instance.log_file.open(encoding="utf-8", errors="replace")
        self._begun: float | None = None

    def next_ended(self) -> Span | None:
        """The next update that has ended since the last look; None while it runs."""
        for line in self._log:
            if not line.startswith("{"):
                continue
            told = json.loads(line)
            at = datetime.fromisoformat(told["timestamp"]).timestamp()
            if told["event"] == "update begins":
                self._begun = at
            elif told["event"] == "update ends" and self._begun is not None:
                return Span(self._begun, at)
            elif told["level"] in ("error", "critical"):
                raise AssertionError(line)
        return None

    async def ended(self) -> Span:
        """Wait for the end of the update at hand."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (span := self.next_ended()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError("the update took too long")
            await asyncio.sleep(0.1)
        return span


class Lessons:
    """Updates of one size, each begun by posting as many new pictures as the trigger waits for."""

    def __init__(self, instance: Instance, model: TaughtModel, samples: int, size: int) -> None:
        self._instance, self._model, self._samples, self._size = instance, model, samples, size
        self._numbers = random.Random(1)

    def begin(self) -> None:
        posted = [
            {"image": base64.b64encode(picture).decode(), "label": label}
            for picture, label in pictures(self._samples, self._size, self._numbers)
        ]
        with self._instance.connection() as connection:
            for part in in_parts(posted):
                answer = connection.post(f"/v1/models/{self._model.name}/samples", {"samples": part})
                assert answer["accepted"] == len(part), answer


@dataclass(frozen=True)
class Round:
    """One round: the same load without and with an update, and the update with and without the load."""

    before: list[Request]
    after: list[Request]
    busy: list[Request]
    swap: list[Request]
    under_load: Span
    alone: Span

    @property
    def idle(self) -> list[Request]:
        """Without an update, for as long as it took."""
        return self.before + self.after


async def played(target: Target, lessons: Lessons, updates: Updates, rate: float, given: argparse.Namespace) -> Round:
    load = Load(target, given.connections, rate)
    running = asyncio.create_task(load.run())
    start = time.time() + SETTLING_SECONDS
    await asyncio.sleep(SETTLING_SECONDS + given.seconds)
    end = time.time()
    await asyncio.to_thread(lessons.begin)
    under_load = await updates.ended()
    await asyncio.sleep(SWAPPING_SECONDS)
    again = time.time()
    await asyncio.sleep(max(given.seconds, under_load.seconds - given.seconds))
    until = time.time()
    load.stop()
    await running
    await asyncio.sleep(FORGOTTEN_SECONDS)
    await asyncio.to_thread(lessons.begin)
    alone = await updates.ended()
    await asyncio.sleep(1.0)
    return Round(
        before=[one for one in load.done if start <= one.due < end],
        after=[one for one in load.done if again <= one.due < until],
        busy=[one for one in load.done if under_load.start <= one.due < under_load.end],
        swap=[one for one in load.done if under_load.end <= one.due < again],
        under_load=under_load,
        alone=alone,
    )


def percentile(requests: list[Request], share: float) -> float:
    """In milliseconds."""
    ordered = sorted(1000 * one.seconds for one in requests)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def told(rate: float, one: Round) -> str:
    """One round in a line, for those who wait."""
    before, during, after = (
        f"{percentile(some, 0.5):.1f}/{percentile(some, 0.99):.1f}" for some in (one.before, one.busy, one.after)
    )
    took = f"{one.under_load.seconds:.1f} s under load, {one.alone.seconds:.1f} s alone"
    return f"capacity {rate:.0f} a second; p50/p99 {before} ms before, {during} during, {after} after; it took {took}"


def over(rounds: list[Round], measure: Callable[[Round], float], digits: int = 2) -> dict[str, Any]:
    """Median and all values."""
    values = [measure(one) for one in rounds]
    return {"median": round(statistics.median(values), digits), "all": [round(value, digits) for value in values]}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=20, help="without an update, before each one and after it, at least"
    )
    parser.add_argument("--load", type=float, default=0.5, help="share of the capacity")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--samples", type=int, default=160, help="an update's")
    parser.add_argument("--passes", type=int, default=3, help="an update's")
    parser.add_argument("--architecture", choices=("resnet18", "resnet50"), default="resnet18")
    parser.add_argument("--size", type=int, default=64, help="of the pictures, in pixels a side")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the service")
    return parser.parse_args()


def main() -> int:
    given = parsed()
    settings = {f"PERENNIAL_{name}": value for name, _, value in (one.partition("=") for one in given.set)}
    asked = [picture for picture, _ in pictures(64, given.size, random.Random(0))]
    rounds, rates = [], []
    surroundings = {
        "PERENNIAL_LOG_FORMAT": "json",
        "PERENNIAL_BUILDERS": f"resnet=resnet:{given.architecture}",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the service is stopped too
    with service(surroundings | settings) as instance, instance.connection() as connection:
        model = TaughtModel(connection, "tints")
        passes = {"passes": given.passes, "patience": given.passes}
        recipe = {
            "new_classes": {"policy": "accept"},
            "trigger": {"samples": given.samples, "seconds": 86_400},
            "early_stopping": passes,
            "memory": {"kind": "class_balanced", "capacity": 160},
        }
        network = {"architecture": "resnet"}
        model.create(
            {"input": {"kind": "image", "size": given.size}, "network": network, "labels": LABELS, "recipe": recipe}
        )
        target = Target.posting(instance.port, f"/v1/models/{model.name}/predict", instance.key, "image/jpeg", asked)
        updates, lessons = Updates(instance), Lessons(instance, model, given.samples, given.size)
        lessons.begin()  # the first one is another: it imports, and rehearses nothing
        uvloop.run(updates.ended())
        for _ in range(given.rounds):
            rates.append(capacity(target, given.connections, 4.0))
            rate = given.load * statistics.median(rates)
            rounds.append(uvloop.run(played(target, lessons, updates, rate, given)))
            sys.stderr.write(f"{told(rates[-1], rounds[-1])}\n")
        verdicts = [one["verdict"] for one in model.versions()]
    found = {
        "capacity, a second": [round(rate, 1) for rate in rates],
        "load": given.load,
        "connections": given.connections,
        "settings": settings,
        "predictions without, during": [[len(one.idle), len(one.busy)] for one in rounds],
        "failed": sum(request.status != 200 for one in rounds for request in one.idle + one.busy + one.swap),
        "p50 without, ms": over(rounds, lambda one: percentile(one.idle, 0.5)),
        "p50 during, ms": over(rounds, lambda one: percentile(one.busy, 0.5)),
        "p99 before, ms": over(rounds, lambda one: percentile(one.before, 0.99)),
        "p99 after, ms": over(rounds, lambda one: percentile(one.after, 0.99)),
        "p99 without, ms": over(rounds, lambda one: percentile(one.idle, 0.99)),
        "p99 during, ms": over(rounds, lambda one: percentile(one.busy, 0.99)),
        "p99 during ÷ without": over(rounds, lambda one: percentile(one.busy, 0.99) / percentile(one.idle, 0.99)),
        "longest in the 2 s after, ms": over(rounds, lambda one: percentile(one.swap, 1.0)),
        "update alone, s": over(rounds, lambda one: one.alone.seconds),
        "update under load ÷ alone": over(rounds, lambda one: one.under_load.seconds / one.alone.seconds),
        "verdicts": verdicts,
    }
    ratio, stretched = found["p99 during ÷ without"]["median"], found["update under load ÷ alone"]["median"]
    return report("interference", found, held=ratio <= 1.5 and stretched <= 4 and found["failed"] == 0)


if __name__ == "__main__":
    sys.exit(main())
