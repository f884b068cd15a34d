"""Writes predictions behind: in groups, by its own thread, never on the path of the answer.

The predict endpoint hands records over, GET and labels by id look into what is not yet written. A crash may
cost the last group. Knows nothing of HTTP.
"""

import threading
import time
from collections.abc import Callable, Sequence

from app.log import get_logger
from app.serving.pace import give_way_at_once
from app.storage.predictions import PACK_RECORDS, Encoded, PredictionLog, PredictionRecord

log = get_logger(__name__)

GROUP_SECONDS = 0.25
GROUP_RECORDS = 4096
GROUP_BYTES = 16 << 20
PRUNE_SECONDS = 60.0
PRUNE_SHARE = 0.25  # of the bytes that are kept: once so many more were written, it is not left for the minute
TRIES = 3


class PredictionWriter:
    """A bounded queue in front of the PredictionLog."""

    def __init__(
        self,
        predictions: PredictionLog,
        *,
        keep_days: float,
        keep_bytes: int,
        queue_records: int = 20_000,
        queue_bytes: int = 256 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._predictions = predictions
        self._keep_days = keep_days
        self._keep_bytes = keep_bytes
        self._queue_records = queue_records
        self._queue_bytes = queue_bytes
        self._clock = clock
        self.dropped = 0
        self._waiting: dict[str, Encoded] = {}  # by prediction id, oldest first
        self._waiting_bytes = 0
        self._writing: dict[str, Encoded] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._next_prune = clock() + PRUNE_SECONDS
        self._unpruned_bytes = 0
        self._thread = threading.Thread(target=self._run, name="prediction-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def write(self, records: Sequence[PredictionRecord]) -> None:
        """Take records over without waiting; when the queue is full they are dropped, counted and logged."""
        with self._changed:
            arriving = sum(len(record.content) for record in records)
            full = (
                len(self._waiting) + len(records) > self._queue_records
                or self._waiting_bytes + arriving > self._queue_bytes
            )
            if full or self._stopping:
                self.dropped += len(records)
                log.warning("predictions not kept", dropped=len(records), dropped_so_far=self.dropped)
                return
            first = not self._waiting
            for record in records:
                self._waiting[record.id] = Encoded.of(record)
            self._waiting_bytes += arriving
            if first or self._ready():
                self._changed.notify_all()

    def find(self, prediction_id: str) -> PredictionRecord | None:
        """Give a record that is not in the PredictionLog yet."""
        with self._changed:
            found = self._waiting.get(prediction_id) or self._writing.get(prediction_id)
        return found.record if found is not None else None

    def flush(self, seconds: float = 5.0) -> bool:
        """Wait until all that was handed over is written; False if that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._writing, timeout=seconds)

    @property
    def depth(self) -> int:
        """How many records wait."""
        with self._changed:
            return len(self._waiting) + len(self._writing)

    def _run(self) -> None:
        give_way_at_once()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping, timeout=PRUNE_SECONDS)
                if self._stopping and not self._waiting:
                    return
                # Let a pack gather; while a group is written, the next one does.
                self._changed.wait_for(lambda: self._stopping or self._ready(), timeout=GROUP_SECONDS)
                self._writing = self._group()
            self._write_group()
            self._prune()

    def _ready(self) -> bool:
        return len(self._waiting) >= PACK_RECORDS or self._waiting_bytes >= GROUP_BYTES

    def _full(self) -> bool:
        return len(self._waiting) >= GROUP_RECORDS or self._waiting_bytes >= GROUP_BYTES

    def _group(self) -> dict[str, Encoded]:
        """Take the next group out of the queue."""
        if not self._full():
            group, self._waiting, self._waiting_bytes = self._waiting, {}, 0
            return group
        group = {}
        nbytes = 0
        for one in self._waiting.values():
            group[one.record.id] = one
            nbytes += len(one.record.content)
            if len(group) >= GROUP_RECORDS or nbytes >= GROUP_BYTES:
                break
        for each in group:
            del self._waiting[each]
        self._waiting_bytes -= nbytes
        return group

    def _write_group(self) -> None:
        records = list(self._writing.values())
        for tried in range(1, TRIES + 1):
            if not records or self._written(records, tried):
                break
        with self._changed:
            self._writing = {}
            self._changed.notify_all()

    def _written(self, records: list[Encoded], tried: int) -> bool:
        try:
            self._predictions.write(records)
            self._unpruned_bytes += sum(len(one.record.content) for one in records)
        except Exception:  # the thread must outlive a database that is away
            log.warning("predictions not written", records=len(records), tried=tried, exc_info=True)
            if tried == TRIES:
                self.dropped += len(records)
            else:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, timeout=tried)
            return False
        return True

    def _prune(self) -> None:
        if self._clock() < self._next_prune and self._unpruned_bytes <= PRUNE_SHARE * self._keep_bytes:
            return
        self._next_prune = self._clock() + PRUNE_SECONDS
        self._unpruned_bytes = 0
        try:
            gone = self._predictions.prune(self._keep_days, self._keep_bytes)
        except Exception:  # tried again in a minute
            log.warning("predictions not pruned", exc_info=True)
            return
        if gone:
            log.info("predictions pruned", predictions=gone)
