"""Serving beside its peers: everything in one run on one machine, in turns, load generator included.

    benchmarks/serving/run.py [--quick] [--only NAME] [--model MODEL] [--dtype TYPE] [--rounds N] [--calibrate]

Each round starts every system once, in another order, and measures it with each number of clients. Settings that
the calibration compares are kept in `results/settings.json`; rows that stand there are not calibrated again.
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # `service`, which all benchmarks share

import limits
import reference
from peers import PEERS, SAME, python_of
from processes import CannotStart
from rich.console import Console
from rows import Plan, Row, Setting, WrongAnswer, limit, measured
from service import machine
from system import BATCH, HERE, MODELS, WINDOW_SECONDS, System
from table import tables

ADAPTERS = ("perennial", "fastapi", "litserve", "bentoml", "ray", "mlserver", "torchserve", "nothing")
RESULTS = HERE / "results"
SETTINGS = RESULTS / "settings.json"
CLIENTS = (1, 8, 32, 64)
CALIBRATION_CLIENTS = 32
FAILURES = (CannotStart, WrongAnswer, RuntimeError, OSError, ValueError, LookupError, subprocess.SubprocessError)
"""What a row may fail with without ending the run."""


def systems() -> list[System]:
    """All rows that are not limits, in the order of the table."""
    return [system for name in ADAPTERS for system in import_module(f"on_{name}").SYSTEMS]


def rows(arguments: argparse.Namespace, console: Console) -> Iterator[Row]:
    """What is to be measured here: what was asked for and is installed."""
    missing = set()
    for model in arguments.model or MODELS:
        for dtype in arguments.dtype or ("fp32", "bf16"):
            for system in systems():
                if arguments.only and not system.name.lower().startswith(tuple(arguments.only)):
                    continue
                if model not in system.models or dtype not in system.dtypes:
                    continue
                if model == "mlp" and dtype == "bf16":
                    continue  # it shows the overhead alone, and a type changes none of it
                if python_of(system.peer) is None:
                    missing.add(system.peer)
                    continue
                yield Row(system, model, dtype)
    for peer in sorted(missing):
        console.print(f"{peer} is not installed: benchmarks/serving/peers.py install {peer}", style="yellow")


class Run:
    """One run: what it measures with, and what it has found so far."""

    def __init__(self, shared: Path, console: Console) -> None:
        self._shared = shared
        self._console = console
        self._references = reference.write(shared)
        self.found: dict[str, dict[str, Any]] = {}
        self.limits: dict[str, dict[str, list[float]]] = {}

    def setting(self, row: Row, *, quick: bool, anew: bool, seconds: float) -> Setting:
        """The best setting of a row, from the file or by a short comparison that goes into the file.

        A quick look compares nothing: what is not in the file gets the first setting.
        """
        kept = json.loads(SETTINGS.read_text()) if SETTINGS.exists() else {}
        if row.key in kept and not (anew and not quick):
            return Setting.from_json(kept[row.key]["best"])
        if quick:
            return row.settings()[0]
        compared = []
        for setting in row.settings():
            plan = Plan((CALIBRATION_CLIENTS,), seconds, seconds / 2)
            figures = self._measured(row, setting, plan)
            if figures is not None:
                compared.append((figures[0]["rps"], setting))
                self._console.print(f"  {row.key}: {setting.as_json()} → {figures[0]['rps']:.0f}/s", style="dim")
        if not compared:
            return row.settings()[0]
        best = max(compared, key=lambda one: one[0])[1]
        kept[row.key] = {
            "best": best.as_json(),
            "compared": [{**setting.as_json(), "rps": rps} for rps, setting in compared],
        }
        SETTINGS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        return best

    def round(self, row: Row, setting: Setting, plan: Plan) -> None:
        """Measure a row once more."""
        entry = self.found.setdefault(
            row.key,
            {
                "system": row.system.name,
                "model": row.model,
                "dtype": row.dtype,
                "settings": setting.as_json(),
                "rounds": [],
                "failed": [],
            },
        )
        figures = self._measured(row, setting, plan, entry["failed"])
        if figures is not None:
            entry["rounds"].append(figures)
            told = ", ".join(
                f"{one['clients']}: {one['rps']:.0f}/s p99 {one['p99_ms']:.0f} ms"
                + (f" {one['errors']} ERRORS" if one["errors"] else "")
                for one in figures
            )
            self._console.print(f"  {row.key}: {told}")

    def _measured(
        self, row: Row, setting: Setting, plan: Plan, failed: list[str] | None = None
    ) -> list[dict[str, Any]] | None:
        try:
            return measured(row, setting, self._references[row.model], self._shared, plan)
        except FAILURES as error:  # the other rows are measured all the same
            self._console.print(f"  {row.key}: {error}", style="red")
            if failed is not None:
                failed.append(str(error))
            return None

    def limit(self, model: str, dtype: str, kind: str, seconds: float) -> None:
        """Measure a loop without HTTP once more; the better of one process and two counts."""
        rates = limit(kind, model, dtype, self._references[model], self._shared, seconds)
        self.limits.setdefault(f"{kind} | {model} | {dtype}", {"rps": []})["rps"].append(max(rates.values()))
        told = ", ".join(f"{processes}: {rate:.0f}/s" for processes, rate in rates.items())
        self._console.print(f"  {kind} | {model} | {dtype}: {told}")


def written(run: Run, plan: Plan, rounds: int, place: Path) -> dict[str, Any]:
    """Put what was found so far, and what it has to be read beside, into a file."""
    found = {
        "benchmark": "serving",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "machine": machine(),
        "system": platform.platform(),
        "versions": {"perennial": metadata.version("perennial"), "torch": metadata.version("torch")}
        | {peer: requirements[-1] for peer, requirements in PEERS.items()}
        | {"all": [*SAME], "uvicorn": metadata.version("uvicorn"), "fastapi": metadata.version("fastapi")},
        "plan": {
            "clients": list(plan.clients),
            "seconds": plan.seconds,
            "warm seconds": plan.warm_seconds,
            "rounds": rounds,
            "largest batch": BATCH,
            "window, ms": 1000 * WINDOW_SECONDS,
        },
        "rows": list(run.found.values()),
        "limits": run.limits,
    }
    place.write_text(json.dumps(found, indent=1) + "\n")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round (or --rounds) of 2 s, no calibration")
    parser.add_argument("--only", action="append", type=str.lower, metavar="NAME", help="systems whose names begin so")
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--dtype", action="append", choices=["fp32", "bf16"])
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--calibrate", action="store_true", help="compare the settings anew")
    parser.add_argument("--no-limits", action="store_true")
    parser.add_argument("--name", help="of the result's file; the date if none")
    arguments = parser.parse_args()
    console = Console(stderr=True, soft_wrap=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a server under way is ended too
    if arguments.quick:
        arguments.seconds = 2.0
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    plan = Plan(arguments.clients, arguments.seconds, 1.0 if arguments.quick else 2.0)
    wanted = list(rows(arguments, console))
    kinds = sorted({(row.model, row.dtype) for row in wanted})
    RESULTS.mkdir(exist_ok=True)
    name = arguments.name or ("quick" if arguments.quick else f"{datetime.now(UTC):%Y-%m-%d}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-shared-") as shared:
        run = Run(Path(shared), console)
        console.print(f"settings of {len(wanted)} rows")
        settings = {
            row.key: run.setting(row, quick=arguments.quick, anew=arguments.calibrate, seconds=2.0) for row in wanted
        }
        for number in range(arguments.rounds):
            order = random.Random(number).sample(wanted, len(wanted))
            console.print(f"round {number + 1} of {arguments.rounds}, load {os.getloadavg()[0]:.1f}")
            for row in order:
                run.round(row, settings[row.key], plan)
            if not arguments.no_limits:
                for (model, dtype), kind in [(one, kind) for one in kinds for kind in limits.KINDS]:
                    run.limit(model, dtype, kind, plan.seconds)
            found = written(run, plan, number + 1, RESULTS / f"{name}.json")
    console.print(tables(found), markup=False)
    console.print(f"{RESULTS / name}.json, {time.monotonic() - started:.0f} s")
    failed = [entry["system"] for entry in run.found.values() if entry["failed"]]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
