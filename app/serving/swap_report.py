"""What bringing one version into service took, as the Refresher tells it and the figures for Prometheus take it in."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SwapReport:
    """One version that is served from now on.

    `swap_seconds` is what the publishing itself took, `load_seconds` what came before it: None where the version was
    still warm. The ages are those of the newest and of the oldest label that the version is the first to have learned,
    counted to the moment it was served; None where it is not served for the first time.
    """

    model: str
    version: int
    swap_seconds: float
    load_seconds: float | None = None
    newest_label_seconds: float | None = None
    oldest_label_seconds: float | None = None
