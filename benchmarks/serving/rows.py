"""One row of the table at one time: its server started, its answers checked, the load put on it, the server ended."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import wrk
from peers import python_of
from processes import busy_seconds, cpu_seconds, descendants, free_ports, runs, server
from reference import Reference
from system import HERE, System, Trial, plain_body

CHECKERS = 16
ANSWER_SECONDS = 60.0


class WrongAnswer(Exception):
    """A system that answers something else than the network says is not measured."""


@dataclass(frozen=True)
class Row:
    """A system with one model in one number format."""

    system: System
    model: str
    dtype: str

    @property
    def key(self) -> str:
        return f"{self.system.name} | {self.model} | {self.dtype}"

    def settings(self) -> list["Setting"]:
        """What the calibration compares."""
        names = list(self.system.choices)
        return [
            Setting(threads, dict(zip(names, values, strict=True)))
            for threads in self.system.threads
            for values in product(*self.system.choices.values())
        ]


@dataclass(frozen=True)
class Setting:
    """How a system is started."""

    threads: int
    choices: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"threads": self.threads, **self.choices}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Setting":
        return cls(found["threads"], {name: value for name, value in found.items() if name != "threads"})


@dataclass(frozen=True)
class Running:
    """A server that answers rightly."""

    row: Row
    trial: Trial
    pid: int

    @property
    def bodies(self) -> Path:
        return self.trial.folder / "bodies"

    def load(self, clients: int, seconds: float, rate: float | None = None) -> wrk.Load:
        """Put load on it; see `wrk.load`."""
        system, port = self.row.system, self.trial.port
        path, headers = system.path(self.trial), system.headers(self.trial)
        return wrk.load(port, path, headers, self.bodies, clients=clients, seconds=seconds, rate=rate)

    def pids(self) -> list[int]:
        """The server's processes."""
        return [self.pid, *descendants(self.pid)]


@contextmanager
def running(row: Row, setting: Setting, reference: Reference, shared: Path) -> Iterator[Running]:
    """Start the row's server in a scratch folder, check its answers, and end it with the block."""
    python = python_of(row.system.peer)
    assert python is not None
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        system = row.system
        trial = Trial(row.model, row.dtype, free_ports(), folder, shared, python, setting.threads, setting.choices)
        variables = {**trial.variables(), **system.variables(trial)}
        wrk.write_bodies(folder / "bodies", [system.body(item) for item in reference.items])
        with server(system.command(trial), variables, trial.port, folder) as pid:
            system.set_up(trial)
            _check(system, trial, reference, pid)
            yield Running(row, trial, pid)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(system: System, trial: Trial, reference: Reference, pid: int) -> None:
    """Ask about every item, many at a time so that batches are formed; WrongAnswer tells what differs."""
    _first_answer(system, trial, reference, pid)
    with ThreadPoolExecutor(CHECKERS) as pool:
        parts = [range(first, len(reference.items), CHECKERS) for first in range(CHECKERS)]
        answers = [
            one for part in pool.map(lambda part: list(_asked(system, trial, reference, part)), parts) for one in part
        ]
    refused = [f"{status}: {body[:300]!r}" for _, status, body in answers if status != 200]
    if refused:
        raise WrongAnswer(f"{len(refused)} of {len(answers)} requests were refused; {refused[0]}")
    read = system.answer
    if read is None:
        return
    found = [(index, *read(body)) for index, _, body in answers]
    complaints = [text for one in found if (text := reference.complaint(*one, trial.dtype)) is not None]
    if complaints:
        raise WrongAnswer(f"{len(complaints)} of {len(found)} answers are wrong; {complaints[0]}")


def _first_answer(system: System, trial: Trial, reference: Reference, pid: int) -> None:
    """Wait until it answers on some new connections in a row: behind an open port, workers may still be starting."""
    deadline = time.monotonic() + ANSWER_SECONDS
    good = 0
    while good < CHECKERS:
        try:
            ((_, status, body),) = _asked(system, trial, reference, [0])
            problem = f"{status}: {body[:300]!r}"
        except (OSError, http.client.HTTPException) as error:
            status, problem = 0, repr(error)
        good = good + 1 if status == 200 else 0
        if time.monotonic() > deadline or not runs(pid):
            log = (trial.folder / "server.log").read_text(errors="replace").splitlines()[-15:]
            raise WrongAnswer("\n".join([f"no good answer; {problem}", *log]))
        if not good:
            time.sleep(0.2)


def _asked(
    system: System, trial: Trial, reference: Reference, indices: Iterable[int]
) -> Iterator[tuple[int, int, bytes]]:
    connection = http.client.HTTPConnection("127.0.0.1", trial.port, timeout=30)
    try:
        for index in indices:
            connection.request(
                "POST", system.path(trial), system.body(reference.items[index]), dict(system.headers(trial))
            )
            answer = connection.getresponse()
            yield index, answer.status, answer.read()
    finally:
        connection.close()


def measured(row: Row, setting: Setting, reference: Reference, shared: Path, plan: "Plan") -> list[dict[str, Any]]:
    """One round of one row: for each number of clients, what the load found and who used the processor."""
    found = []
    with running(row, setting, reference, shared) as started:
        for clients in plan.clients:
            started.load(clients, plan.warm_seconds)
            ours, all_of_it, clock = _used(), busy_seconds(), time.monotonic()
            load = started.load(clients, plan.seconds)
            elapsed = time.monotonic() - clock
            elsewhere = (busy_seconds() - all_of_it) - (_used() - ours)
            figures = {name: round(value, 2) for name, value in asdict(load).items()}
            found.append(
                {
                    "clients": clients,
                    "rps": round(load.rps, 1),
                    "errors": load.errors,
                    "cores used elsewhere": round(max(0.0, elsewhere) / elapsed, 2),
                    **figures,
                }
            )
    return found


def _used() -> float:
    return cpu_seconds([os.getpid(), *descendants(os.getpid())])


@dataclass(frozen=True)
class Plan:
    """How long and with how many clients."""

    clients: Sequence[int]
    seconds: float
    warm_seconds: float


def limit(kind: str, model: str, dtype: str, reference: Reference, shared: Path, seconds: float) -> dict[str, float]:
    """Inputs a second of a loop without HTTP: with two threads in one process, and with one in each of two."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        wrk.write_bodies(folder / "bodies", [plain_body(item) for item in reference.items])
        rates = {}
        for threads, processes in ((2, 1), (1, 2)):
            trial = Trial(model, dtype, 0, folder, shared, Path(sys.executable), threads)
            ran = subprocess.run(
                [sys.executable, str(HERE / "limits.py"), kind, str(seconds), str(processes)],
                env={**os.environ, **trial.variables()},
                capture_output=True,
                text=True,
                timeout=seconds + 90,
                check=True,
            )
            rates[f"{processes} × {threads}"] = round(json.loads(ran.stdout), 1)
        return rates
    finally:
        shutil.rmtree(folder, ignore_errors=True)
