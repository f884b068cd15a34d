"""Where the loading of one assigned version stands, and when it may be tried again.

Kept by the Refresher, one for each model, and touched under its lock only.
"""

from dataclasses import dataclass

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0


@dataclass
class LoadAttempt:
    """Times are by the Refresher's clock."""

    version_id: str
    epoch: int
    loading: bool = False
    failures: int = 0
    not_before: float = 0.0

    def fail(self, now: float) -> float:
        """Note a failure; give the seconds until the next try, twice as many each time."""
        self.failures += 1
        delay: float = min(FIRST_RETRY_SECONDS * 2 ** (self.failures - 1), LAST_RETRY_SECONDS)
        self.not_before = now + delay
        return delay
