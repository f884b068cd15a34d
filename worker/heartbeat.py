"""The sign of life of a running update, given by a thread of its own, so that long steps do not end the lease.

Started by the worker's update around its work. Knows of the queue only that it can be told.
"""

import threading
from types import TracebackType
from typing import Protocol, Self

from app.errors import LeaseLost
from app.log import get_logger

log = get_logger(__name__)


class Leases(Protocol):
    """What the heartbeat asks of the queue."""

    def heartbeat(self, update_id: int, lease_seconds: float) -> None: ...


class Heartbeat:
    """Extends the leases every quarter of them while the `with` block runs; `lost` is set once one is another's."""

    def __init__(self, leases: Leases, *update_ids: int, lease_seconds: float) -> None:
        self.lost = threading.Event()
        self._leases = leases
        self._update_ids = update_ids
        self._lease_seconds = lease_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat-{update_ids[0]}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._done.wait(self._lease_seconds / 4):
            try:
                for update_id in self._update_ids:
                    self._leases.heartbeat(update_id, self._lease_seconds)
            except LeaseLost:
                self.lost.set()
                return
            except Exception as error:  # noqa: BLE001  a database that is away for a moment must not end the thread
                log.warning("heartbeat failed", update=self._update_ids[0], error=str(error))
