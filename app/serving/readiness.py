"""What a server does not answer yet, as the Refresher knows it and health checks show it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Readiness:
    """Names of models that have no answer yet, and of those whose live version could not be loaded."""

    waiting: tuple[str, ...]
    degraded: tuple[str, ...]
