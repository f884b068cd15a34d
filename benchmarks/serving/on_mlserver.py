"""MLServer: a custom runtime behind the V2 protocol, adaptive batching, in its main process or in a worker of its own.

Pictures travel in base64 inside JSON: its REST has no binary form.
"""

import base64
import json
import os
from typing import Any

from system import BATCH, WINDOW_SECONDS, Item, System, Trial, trial_here

if "BENCH_SERVER" in os.environ:
    from mlserver import MLModel
    from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
    from networks import Served

    class Runtime(MLModel):  # type: ignore[misc]
        async def load(self) -> bool:
            trial = trial_here()
            self.picture = trial.model == "resnet18"
            self.served = Served(trial.model, trial.dtype, trial.threads)
            return True

        async def predict(self, payload: InferenceRequest) -> InferenceResponse:
            data: list[Any] = payload.inputs[0].data.root
            if self.picture:
                decoded = [self.served.decode(base64.b64decode(one)) for one in data]
            else:
                rows, columns = payload.inputs[0].shape
                decoded = [data[row * columns : (row + 1) * columns] for row in range(rows)]
            answers = self.served.answer(decoded)
            outputs = [
                ResponseOutput(name=name, shape=[len(answers), 1], datatype=kind, data=[one[name] for one in answers])
                for name, kind in (("label", "INT64"), ("score", "FP32"))
            ]
            return InferenceResponse(model_name=self.name, outputs=outputs)


def _command(trial: Trial) -> list[str]:
    workers = int(trial.choices.get("BENCH_WORKERS", "1"))
    settings = {
        "host": "127.0.0.1",
        "http_port": trial.port,
        "grpc_port": trial.port + 1,
        "metrics_port": trial.port + 2,
        "parallel_workers": workers,
        "debug": False,
    }
    model = {
        "name": "model",
        "implementation": "on_mlserver.Runtime",
        "max_batch_size": BATCH,
        "max_batch_time": WINDOW_SECONDS,
    }
    (trial.folder / "settings.json").write_text(json.dumps(settings))
    (trial.folder / "model-settings.json").write_text(json.dumps(model))
    return [str(trial.python.with_name("mlserver")), "start", str(trial.folder)]


def _body(item: Item) -> bytes:
    if isinstance(item, bytes):
        tensor = {"shape": [1, 1], "datatype": "BYTES", "data": [base64.b64encode(item).decode()]}
    else:
        tensor = {"shape": [1, len(item)], "datatype": "FP32", "data": item}
    return json.dumps({"inputs": [{"name": "input", **tensor}]}).encode()


def _answer(body: bytes) -> tuple[int, float]:
    outputs = {one["name"]: one["data"][0] for one in json.loads(body)["outputs"]}
    return int(outputs["label"]), outputs["score"]


SYSTEMS = (
    System(
        "MLServer",
        _command,
        peer="mlserver",
        dtypes=("fp32", "bf16"),
        path=lambda _: "/v2/models/model/infer",
        headers=lambda _: {"Content-Type": "application/json"},
        variables=lambda trial: {"MLSERVER_MODELS_DIR": str(trial.folder), "TMPDIR": str(trial.folder)},
        body=_body,
        answer=_answer,
        choices={"BENCH_WORKERS": ("0", "1")},
    ),
)
