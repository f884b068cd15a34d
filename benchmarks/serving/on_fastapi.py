"""Plain FastAPI and torch as tutorials write it: one global network, asked by each request by itself.

Pictures go through a `def` endpoint and torchvision's transforms, vectors through an `async def` one.
"""

from io import BytesIO
from typing import Annotated, Any

from system import System, Trial, trial_here


def create_app():  # type: ignore[no-untyped-def]
    """The server's application."""
    import torch  # noqa: PLC0415
    from fastapi import Body, FastAPI  # noqa: PLC0415
    from networks import load  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415
    from pydantic import BaseModel  # noqa: PLC0415
    from torchvision import transforms  # noqa: PLC0415

    trial = trial_here()
    torch.set_num_threads(trial.threads)
    network = load(trial.model, "fp32")
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    app = FastAPI()

    class Vector(BaseModel):
        features: list[float]

    def answer(inputs: torch.Tensor) -> dict[str, Any]:
        with torch.no_grad():
            best = network(inputs).softmax(1).max(1)
        return {"label": best.indices.item(), "score": best.values.item()}

    if trial.model == "resnet18":

        @app.post("/predict")
        def predict(content: Annotated[bytes, Body(media_type="image/jpeg")]) -> dict[str, Any]:
            return answer(transform(Image.open(BytesIO(content)).convert("RGB")).unsqueeze(0))
    else:

        @app.post("/predict")
        async def predict(vector: Vector) -> dict[str, Any]:
            return answer(torch.tensor([vector.features]))

    return app


def _uvicorn(processes: int):  # type: ignore[no-untyped-def]
    def command(trial: Trial) -> list[str]:
        return [
            *(str(trial.python), "-m", "uvicorn", "--factory", "on_fastapi:create_app", "--port", str(trial.port)),
            *("--workers", str(processes), "--no-access-log", "--log-level", "warning"),
        ]

    return command


SYSTEMS = (
    System("FastAPI", _uvicorn(1)),
    System("FastAPI, 2 processes", _uvicorn(2), threads=(1,)),
)
