"""What one batch took, as the Batcher tells it and the figures for Prometheus take it in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchReport:
    """One forward pass over the inputs of one or more requests for one model."""

    model: str
    items: int
    requests: int
    queue_seconds: tuple[float, ...]  # one a request: from its arrival to its dispatch
    decode_seconds: float
    compute_seconds: float
