"""How the requests of one model are joined: the knobs of the Batcher, changeable while it serves."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Batching:
    """`max_items` in one forward pass; `window_seconds` that the oldest of a batch may wait for company;
    `queue_items` that may wait or be in work at a time, beyond which a request is refused.
    """

    max_items: int = 64
    window_seconds: float = 0.0
    queue_items: int = 256
