"""LitServe: one HTTP process, one inference process, its own batching."""

import os
from typing import Annotated, Any

from system import BATCH, WINDOW_SECONDS, System, Trial, trial_here

if "BENCH_SERVER" in os.environ:
    import litserve
    from fastapi import Body, Request
    from networks import Served

    PICTURES = os.environ["BENCH_MODEL"] == "resnet18"
    # Its own parsing for JSON; for pictures the body as it is, which costs it less than base64 or a form.
    Form = Annotated[bytes, Body(media_type="image/jpeg")] if PICTURES else Request

    class Api(litserve.LitAPI):
        def setup(self, device: str) -> None:
            trial = trial_here()
            self.served = Served(trial.model, trial.dtype, trial.threads)

        def decode_request(self, request: Form) -> Any:
            return self.served.decode(request if PICTURES else request["features"])

        def batch(self, inputs: list[Any]) -> list[Any]:
            return list(inputs)

        def predict(self, inputs: list[Any]) -> list[dict[str, float]]:
            return self.served.answer(inputs)

        def unbatch(self, output: list[dict[str, float]]) -> list[dict[str, float]]:
            return output

        def encode_response(self, output: dict[str, float]) -> dict[str, float]:
            return output


def main() -> None:
    """Run the server in this process."""
    server = litserve.LitServer(
        Api(max_batch_size=BATCH, batch_timeout=WINDOW_SECONDS),
        accelerator="cpu",
        fast_queue=os.environ["BENCH_FAST_QUEUE"] == "1",
    )
    port = trial_here().port
    server.run(host="127.0.0.1", port=port, num_api_servers=1, generate_client_file=False, log_level="warning")


def _command(trial: Trial) -> list[str]:
    return [str(trial.python), __file__]


SYSTEMS = (
    System("LitServe", _command, peer="litserve", dtypes=("fp32", "bf16"), choices={"BENCH_FAST_QUEUE": ("0", "1")}),
)

if __name__ == "__main__":
    main()
