"""This project: `perennial serve` as a user starts it, with keys, prediction ids and the prediction log, on SQLite.

The model is created over HTTP; its network comes from a builder, so that it is the very one the peers serve.
Settings of the surroundings (`PERENNIAL_…`) go to the server, so that they can be compared.
"""

import json
import os
import subprocess
import time
import urllib.request

from system import HERE, Item, System, Trial

KEY = "prn_benchmarks-of-serving-use-this-key"
INPUT = {
    "resnet18": {"kind": "image", "size": 64, "channels": 3},
    "mlp": {"kind": "features", "size": 784},
}
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.5
QUIET_SHARE = 0.3  # of a core
QUIET_LOOKS = 3  # in a row


def perennial(processes: int):  # type: ignore[no-untyped-def]
    """What starts the server: the database first, then `serve`."""

    def command(trial: Trial) -> list[str]:
        program = [str(trial.python), "-m", "app.cli.entry"]
        surroundings = {**os.environ, **trial.variables(), **variables(trial)}
        upgrade = [*program, "db", "upgrade"]
        subprocess.run(upgrade, check=True, env=surroundings, cwd=trial.folder, capture_output=True, timeout=60)
        return [*program, "serve", *(["--processes", str(processes)] if processes > 1 else [])]

    return command


def variables(trial: Trial) -> dict[str, str]:
    return {
        "PYTHONPATH": f"{HERE}:{HERE.parent.parent}",
        "PERENNIAL_HOST": "127.0.0.1",
        "PERENNIAL_PORT": str(trial.port),
        "PERENNIAL_DATA_DIR": str(trial.folder / "data"),
        "PERENNIAL_DATABASE_URL": "",
        "PERENNIAL_ADMIN_KEY": KEY,
        "PERENNIAL_BUILDERS": "bench_resnet18=networks:resnet18,bench_mlp=networks:mlp",
        "PERENNIAL_SERVER_THREADS": str(trial.threads),
        "PERENNIAL_SERVER_PRECISION": "bfloat16" if trial.dtype == "bf16" else "float32",
        "PERENNIAL_LOG_LEVEL": "WARNING",
    }


def set_up(trial: Trial) -> None:
    """Create the model and wait until it answers."""
    _wait_ready(trial)
    body = {
        "name": "model",
        "input": INPUT[trial.model],
        "network": {"architecture": f"bench_{trial.model}", "weights": None},
        "labels": [str(label) for label in range(10)],
    }
    post(trial, "/v1/models", body)
    _wait_settled(trial)


def _wait_settled(trial: Trial) -> None:
    """Wait until the server rests: once a version is served, it tries beside it how to run it soonest."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    before, quiet = _processor_seconds(trial), 0
    while quiet < QUIET_LOOKS and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        now = _processor_seconds(trial)
        quiet = quiet + 1 if now - before < QUIET_SHARE * LOOK_SECONDS else 0
        before = now


def _processor_seconds(trial: Trial) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{trial.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("process_cpu_seconds_total"))


def post(trial: Trial, path: str, body: object) -> bytes:
    """One request with the admin's key."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{trial.port}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        content: bytes = answer.read()
    return content


def _wait_ready(trial: Trial) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{trial.port}/readyz", timeout=2):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _headers(trial: Trial) -> dict[str, str]:
    kind = "image/jpeg" if trial.model == "resnet18" else "application/json"
    return {"Content-Type": kind, "Authorization": f"Bearer {KEY}"}


def _body(item: Item) -> bytes:
    return item if isinstance(item, bytes) else json.dumps({"inputs": [{"features": item}]}).encode()


def _answer(body: bytes) -> tuple[int, float]:
    (prediction,) = json.loads(body)["predictions"]
    assert prediction["prediction_id"]
    return int(prediction["label"]), prediction["score"]


def system(processes: int) -> System:
    """A row for so many processes."""
    return System(
        "Perennial" if processes == 1 else f"Perennial, {processes} processes",
        perennial(processes),
        dtypes=("fp32", "bf16"),
        path=lambda _: "/v1/models/model/predict",
        headers=_headers,
        variables=variables,
        set_up=set_up,
        body=_body,
        answer=_answer,
        threads=(1, 2) if processes == 1 else (1,),
    )


SYSTEMS = (system(1), system(2))
