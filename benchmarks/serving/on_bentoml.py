"""BentoML: one worker with adaptive batching. A batchable endpoint takes lists, so each request sends a list of one."""

import base64
import json
import os
from typing import Any

from system import BATCH, Item, System, Trial, trial_here

if "BENCH_SERVER" in os.environ:
    import bentoml
    from networks import Served

    TRIAL = trial_here()

    @bentoml.service(
        workers=1, traffic={"timeout": 60, "max_concurrency": 1000}, logging={"access": {"enabled": False}}
    )
    class Model:
        def __init__(self) -> None:
            self.served = Served(TRIAL.model, TRIAL.dtype, TRIAL.threads)

        if TRIAL.model == "resnet18":

            @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=10_000)
            def predict(self, inputs: list[str]) -> list[dict[str, Any]]:
                return self.served.answer([self.served.decode(base64.b64decode(one)) for one in inputs])
        else:

            @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=10_000)
            def predict(self, inputs: list[list[float]]) -> list[dict[str, Any]]:
                return self.served.answer(inputs)


def _command(trial: Trial) -> list[str]:
    return [
        *(str(trial.python), "-m", "bentoml", "serve", "on_bentoml:Model", "--host", "127.0.0.1"),
        *("--port", str(trial.port), "--working-dir", str(trial.folder)),
    ]


def _variables(trial: Trial) -> dict[str, str]:
    return {"BENTOML_HOME": str(trial.folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1"}


def _body(item: Item) -> bytes:
    one = base64.b64encode(item).decode() if isinstance(item, bytes) else item
    return json.dumps({"inputs": [one]}).encode()


def _answer(body: bytes) -> tuple[int, float]:
    (answer,) = json.loads(body)
    return int(answer["label"]), answer["score"]


SYSTEMS = (
    System(
        "BentoML",
        _command,
        peer="bentoml",
        headers=lambda _: {"Content-Type": "application/json"},
        variables=_variables,
        body=_body,
        answer=_answer,
    ),
)
