"""LitServe: one HTTP process, one inference process, its own batching."""

from typing import Annotated, Any

from system import BATCH, WINDOW_SECONDS, System, Trial, trial_here


def serve() -> None:
    """Run the server in this process."""
    import os  # noqa: PLC0415

    import litserve  # noqa: PLC0415
    from fastapi import Body, Request  # noqa: PLC0415
    from networks import Served  # noqa: PLC0415

    trial = trial_here()
    # Its own parsing for JSON; for pictures the body as it is, which costs it less than base64 or a form.
    form = Annotated[bytes, Body(media_type="image/jpeg")] if trial.model == "resnet18" else Request

    class Api(litserve.LitAPI):  # type: ignore[misc, name-defined]
        def setup(self, device: str) -> None:
            self.served = Served(trial.model, trial.dtype, trial.threads)

        def decode_request(self, request: form) -> Any:  # type: ignore[valid-type]
            return self.served.decode(request if trial.model == "resnet18" else request["features"])

        def batch(self, inputs: list[Any]) -> list[Any]:
            return list(inputs)

        def predict(self, inputs: list[Any]) -> list[dict[str, float]]:
            return self.served.answer(inputs)

        def unbatch(self, output: list[dict[str, float]]) -> list[dict[str, float]]:
            return output

        def encode_response(self, output: dict[str, float]) -> dict[str, float]:
            return output

    server = litserve.LitServer(
        Api(max_batch_size=BATCH, batch_timeout=WINDOW_SECONDS),
        accelerator="cpu",
        fast_queue=os.environ["BENCH_FAST_QUEUE"] == "1",
    )
    server.run(host="127.0.0.1", port=trial.port, num_api_servers=1, generate_client_file=False, log_level="warning")


def _command(trial: Trial) -> list[str]:
    return [str(trial.python), __file__]


SYSTEMS = (
    System("LitServe", _command, peer="litserve", dtypes=("fp32", "bf16"), choices={"BENCH_FAST_QUEUE": ("0", "1")}),
)

if __name__ == "__main__":
    serve()
