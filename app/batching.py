"""How the requests of one model are joined into forward passes: the knobs, changeable while it serves.

Kept with the model, read by the servers' batchers. Pydantic only, so that the wire and the servers share it.
"""

from pydantic import BaseModel, ConfigDict, Field


class Batching(BaseModel):
    """Where nothing is said, a batch is what waits when a pass can start: nobody waits for company."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_items: int = Field(default=64, ge=1, le=1024, description="Inputs in one forward pass at most.")
    window_ms: float = Field(
        default=0.0,
        ge=0,
        le=10_000,
        allow_inf_nan=False,
        description="How long the oldest of a batch may wait for company; 0: not at all.",
    )
    queue_items: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Inputs that may wait or be in work; null: the server's setting."
    )
