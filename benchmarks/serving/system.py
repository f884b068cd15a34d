"""What an adapter tells of its system: how a server is started, what is posted to it, and what its answer means.

Read by the harness and, inside the peers' own environments, by the adapters' servers: the standard library alone.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
BATCH = 32
WINDOW_SECONDS = 0.005
MODELS = ("resnet18", "mlp")


@dataclass(frozen=True)
class Trial:
    """One start of one system: which model, how, where."""

    model: str
    dtype: str  # fp32 or bf16
    port: int
    folder: Path  # scratch of this start
    shared: Path  # weights and items, the same for all
    python: Path  # of the system's environment
    threads: int = 1
    choices: Mapping[str, str] = field(default_factory=dict)  # the system's own settings, as variables

    def variables(self) -> dict[str, str]:
        """What a server reads with `trial_here`, and the threads of every library that has some."""
        threads = str(self.threads)
        return {
            "BENCH_SERVER": "1",  # whoever imports an adapter with this is its server
            "BENCH_MODEL": self.model,
            "BENCH_DTYPE": self.dtype,
            "BENCH_PORT": str(self.port),
            "BENCH_FOLDER": str(self.folder),
            "BENCH_SHARED": str(self.shared),
            "BENCH_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "PYTHONPATH": str(HERE),
            "PYTHONUNBUFFERED": "1",
            **self.choices,
        }


def trial_here() -> Trial:
    """The trial of the server process that asks."""
    given = os.environ
    return Trial(
        given["BENCH_MODEL"],
        given["BENCH_DTYPE"],
        int(given["BENCH_PORT"]),
        Path(given["BENCH_FOLDER"]),
        Path(given["BENCH_SHARED"]),
        Path(sys.executable),
        int(given["BENCH_THREADS"]),
    )


Item = bytes | list[float]


def plain_body(item: Item) -> bytes:
    """A picture as its bytes, a vector as `{"features": […]}`."""
    return item if isinstance(item, bytes) else json.dumps({"features": item}).encode()


def plain_answer(body: bytes) -> tuple[int, float]:
    """Label and score out of `{"label": …, "score": …}`."""
    answer = json.loads(body)
    return int(answer["label"]), answer["score"]


def plain_headers(trial: Trial) -> dict[str, str]:
    return {"Content-Type": "image/jpeg" if trial.model == "resnet18" else "application/json"}


@dataclass(frozen=True)
class System:
    """A row of the table."""

    name: str
    command: Callable[[Trial], list[str]]  # prepares what the start needs, and gives the server's command line
    peer: str = "own"  # whose environment; "own" is the project's
    models: tuple[str, ...] = MODELS
    dtypes: tuple[str, ...] = ("fp32",)
    path: Callable[[Trial], str] = lambda _: "/predict"
    headers: Callable[[Trial], dict[str, str]] = plain_headers
    body: Callable[[Item], bytes] = plain_body
    answer: Callable[[bytes], tuple[int, float]] | None = plain_answer  # None: answers nothing worth a check
    variables: Callable[[Trial], dict[str, str]] = lambda _: {}
    set_up: Callable[[Trial], None] = lambda _: None  # once the port is open
    threads: tuple[int, ...] = (1, 2)  # what the calibration compares
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # and what else, by variable
