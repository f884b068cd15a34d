"""TorchServe: its Java front, one Python worker, its own batching; token keys off, temporary files in its folder."""

import subprocess
from typing import Any

from system import BATCH, WINDOW_SECONDS, System, Trial, trial_here

HANDLER = "from on_torchserve import Handler\n\n\nclass Served(Handler):\n    pass\n"
LOGGING = """<Configuration>
<Appenders><Console name="console"><PatternLayout pattern="%p %c %m%n"/></Console></Appenders>
<Loggers><Root level="error"><AppenderRef ref="console"/></Root></Loggers>
</Configuration>"""
MANAGEMENT, METRICS, WORKERS, RPC = 1, 2, 3, 20


class Handler:
    """What its worker calls with a batch of requests."""

    def initialize(self, context: Any) -> None:
        from networks import Served  # noqa: PLC0415  in the worker's process

        trial = trial_here()
        self.picture = trial.model == "resnet18"
        self.served = Served(trial.model, trial.dtype, trial.threads)
        self.initialized = True

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[dict[str, float]]:
        bodies = [one.get("body") or one.get("data") for one in data]
        return self.served.answer([self.served.decode(one if self.picture else one["features"]) for one in bodies])


def _command(trial: Trial) -> list[str]:
    store = trial.folder / "store"
    store.mkdir()
    (trial.folder / "handler.py").write_text(HANDLER)
    subprocess.run(
        [
            *(str(trial.python), "-m", "model_archiver.model_packaging", "--model-name", "model", "--version", "1.0"),
            *("--handler", str(trial.folder / "handler.py"), "--export-path", str(store)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    port = trial.port
    model = {
        "1.0": {
            "defaultVersion": True,
            "marName": "model.mar",
            "minWorkers": 1,
            "maxWorkers": 1,
            "batchSize": BATCH,
            "maxBatchDelay": int(1000 * WINDOW_SECONDS),
            "responseTimeout": 60,
        }
    }
    settings = {
        "inference_address": f"http://127.0.0.1:{port}",
        "management_address": f"http://127.0.0.1:{port + MANAGEMENT}",
        "metrics_address": f"http://127.0.0.1:{port + METRICS}",
        "grpc_inference_port": port + RPC,
        "grpc_management_port": port + RPC + 1,
        "initial_worker_port": port + WORKERS,
        "default_workers_per_model": 1,
        "job_queue_size": 1000,
        "disable_system_metrics": "true",
        "disable_token_authorization": "true",
        "load_models": "model.mar",
        "models": str({"model": model}).replace("'", '"').replace("True", "true"),
    }
    logging = trial.folder / "log4j2.xml"  # it logs several lines a request by default
    logging.write_text(LOGGING)
    config = trial.folder / "config.properties"
    config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return [
        *(str(trial.python.with_name("torchserve")), "--start", "--foreground", "--ncs", "--model-store", str(store)),
        *("--ts-config", str(config), "--disable-token-auth", "--log-config", str(logging)),
    ]


def _variables(trial: Trial) -> dict[str, str]:
    folder = str(trial.folder)
    return {"TMPDIR": folder, "TEMP": folder, "LOG_LOCATION": folder, "METRICS_LOCATION": folder, "TS_METRICS": ""}


SYSTEMS = (
    System(
        "TorchServe",
        _command,
        peer="torchserve",
        dtypes=("fp32", "bf16"),
        path=lambda _: "/predictions/model",
        variables=_variables,
    ),
)
