"""Ray Serve: one replica behind its proxy, `serve.batch`; a cluster of this machine alone that ends with the server."""

import os
import signal
from typing import Any

from system import BATCH, WINDOW_SECONDS, System, Trial, trial_here


def main() -> None:
    """Run the cluster until a signal."""
    import ray  # noqa: PLC0415
    from ray import serve  # noqa: PLC0415
    from starlette.requests import Request  # noqa: PLC0415

    trial = trial_here()

    @serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 1, "runtime_env": {}})
    class Model:
        def __init__(self) -> None:
            from networks import Served  # noqa: PLC0415  in the replica's process

            self.served = Served(trial.model, trial.dtype, trial.threads)

        @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WINDOW_SECONDS)
        async def answer(self, payloads: list[Any]) -> list[dict[str, float]]:
            return self.served.answer([self.served.decode(one) for one in payloads])

        async def __call__(self, request: Request) -> dict[str, float]:
            if trial.model == "resnet18":
                return await self.answer(await request.body())
            return await self.answer((await request.json())["features"])

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=128 * 1024 * 1024,
        log_to_driver=False,
        _temp_dir=f"/tmp/ray-{os.getpid()}",
    )
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": trial.port})
        serve.run(Model.bind(), route_prefix="/predict")  # type: ignore[attr-defined]
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        ray.shutdown()
        import shutil  # noqa: PLC0415

        shutil.rmtree(f"/tmp/ray-{os.getpid()}", ignore_errors=True)


def _command(trial: Trial) -> list[str]:
    return [str(trial.python), __file__]


SYSTEMS = (
    System(
        "Ray Serve",
        _command,
        peer="ray",
        variables=lambda _: {"RAY_USAGE_STATS_ENABLED": "0"},
        choices={"RAY_SERVE_THROUGHPUT_OPTIMIZED": ("0", "1")},
    ),
)

if __name__ == "__main__":
    main()
