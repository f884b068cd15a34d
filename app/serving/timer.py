"""A thread that does one thing again and again until stopped.

Made by the server's composition root for chores of its own (lapsed leases, old predictions). Knows nothing of them.
"""

import threading
from collections.abc import Callable

from app.log import get_logger

log = get_logger(__name__)


class Timer:
    """Calls `action` every `seconds`; an error is logged and the next turn tries again."""

    def __init__(self, name: str, seconds: float, action: Callable[[], object]) -> None:
        self._name = name
        self._seconds = seconds
        self._action = action
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when the last turn has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                self._action()
            except Exception:  # a chore that fails once must not end the thread
                log.warning("chore failed", chore=self._name, exc_info=True)
