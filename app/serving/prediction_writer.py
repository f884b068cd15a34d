"""Writes predictions behind: hands them to a scribe, a process of its own, never on the path of the answer.

The predict endpoint hands records over, GET and labels by id look into what is not yet written. To hand over is a copy
into memory that both share: no thread of this process is woken, which would wait for Python's lock and hold up whoever
answers. Nothing is lost by a crash of either. Knows nothing of HTTP.
"""

import os
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from app.log import get_logger
from app.serving.scribe import GROUP_SECONDS, NOW, SOON, Terms
from app.serving.spool import Spool, spool_file
from app.settings import Settings
from app.storage.predictions import PACK_RECORDS, Encoded, PredictionRecord

log = get_logger(__name__)

SETTLED_SECONDS = 60.0  # a scribe that lived this long is replaced with the shortest delay
FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 30.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.005


class PredictionWriter:
    """A bounded queue in front of the prediction log, and the scribe that empties it. Safe to call from many threads.

    The scribe is started with the first prediction at the latest, and another one when it has ended.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        queue_records: int = 20_000,
        queue_bytes: int = 256 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`terms` are the scribes'."""
        file = spool_file(queue_bytes)
        self._close_file = weakref.finalize(self, os.close, file)
        self._spool = Spool(file)
        self._terms = terms.model_copy(update={"file": file})
        self._queue_records = queue_records
        self._clock = clock
        self._refused = 0
        self._waiting: OrderedDict[str, PredictionRecord] = OrderedDict()  # oldest first, some of it written already
        self._forgotten = 0  # how many have left it
        self._unsaid = 0  # put since the scribe was told to write
        self._said_at = float("-inf")
        self._changed = threading.Condition()
        self._stopping = False
        self._scribe: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None  # to the scribe
        self._keeper: threading.Thread | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            Terms(
                database=settings.database_address,
                keep_days=settings.prediction_days,
                keep_bytes=settings.prediction_bytes,
                log_level=settings.log_level,
                log_format=settings.log_format,
            )
        )

    def start(self) -> None:
        """Have a scribe now: the first prediction need not wait for a processor while it starts."""
        with self._changed:
            self._keep_a_scribe()

    def stop(self) -> None:
        """Write what waits, then end."""
        with self._changed:
            self._stopping = True
            self._hang_up()
            self._changed.notify_all()
        if self._keeper is not None:
            self._keeper.join(timeout=STOP_SECONDS)
            if self._keeper.is_alive() and self._scribe is not None:
                log.warning("predictions not written in time", records=self._spool.depth)
                self._scribe.kill()
                self._keeper.join()
        self._close_file()

    def write(self, records: Sequence[PredictionRecord]) -> None:
        """Take records over without waiting; those that find no room are dropped, counted and logged."""
        with self._changed:
            self._forget_written()
            refused = 0
            for record in records:
                full = self._stopping or len(self._waiting) >= self._queue_records
                if full or not self._spool.put(Encoded.of(record).to_bytes()):
                    refused += 1
                else:
                    self._waiting[record.id] = record
                    self._unsaid += 1
            if refused:
                self._refused += refused
                log.warning("predictions not kept", dropped=refused, dropped_so_far=self.dropped)
            if self._unsaid >= PACK_RECORDS:
                self._say(NOW)
            elif self._clock() - self._said_at >= GROUP_SECONDS:
                self._say(SOON)
            self._keep_a_scribe()

    def find(self, prediction_id: str) -> PredictionRecord | None:
        """Give a record that may not be in the log yet."""
        with self._changed:
            self._forget_written()
            return self._waiting.get(prediction_id)

    def flush(self, seconds: float = 30.0) -> bool:
        """Wait until all that was handed over is written; False if that took longer."""
        with self._changed:
            self._say(NOW)
        until = self._clock() + seconds
        while self._spool.depth:
            if self._clock() > until:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    @property
    def scribe(self) -> int | None:
        """The scribe's process id, None before there was one."""
        return None if self._scribe is None else self._scribe.pid

    @property
    def depth(self) -> int:
        """How many records wait."""
        return self._spool.depth

    @property
    def dropped(self) -> int:
        """How many records were not kept."""
        return self._refused + self._spool.lost

    def _forget_written(self) -> None:
        done = self._spool.done
        while self._forgotten < done:
            self._waiting.popitem(last=False)
            self._forgotten += 1

    def _say(self, word: bytes) -> None:
        """Tell the scribe; one that is not there yet looks by itself."""
        self._said_at = self._clock()
        if word == NOW:
            self._unsaid = 0
        if self._pipe is not None:
            with suppress(BlockingIOError, BrokenPipeError):  # it has been told often enough; it died
                os.write(self._pipe, word)

    def _hang_up(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def _keep_a_scribe(self) -> None:
        if self._keeper is None and not self._stopping:
            self._keeper = threading.Thread(target=self._keep, name="scribe-keeper", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        """Have a scribe until the end, and one for what is left then."""
        deaths = 0
        while True:
            last, began = self._stopping, time.monotonic()
            try:
                code = self._one_scribe()
            except OSError as error:  # no memory, no descriptor: there may be some later
                code = error.errno or -1
            with self._changed:
                if last or (self._stopping and not self._spool.depth):
                    return
                deaths = 0 if time.monotonic() - began > SETTLED_SECONDS else deaths + 1
                delay = min(FIRST_DELAY_SECONDS * 2 ** (deaths - 1), LONGEST_DELAY_SECONDS)
                log.warning("scribe ended, another one follows", code=code, delay_seconds=delay)
                self._changed.wait_for(lambda: self._stopping, timeout=delay)

    def _one_scribe(self) -> int:
        """Start a scribe and wait for its end; its exit code. Raises OSError where none can be started."""
        theirs, ours = os.pipe()
        try:
            self._scribe = subprocess.Popen(
                [sys.executable, "-m", "app.serving.scribe"],
                stdin=theirs,
                pass_fds=(self._terms.file,),
                process_group=0,  # Ctrl-C in a terminal is for the server
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        with suppress(BrokenPipeError):
            os.write(ours, self._terms.model_dump_json().encode() + b"\n")
        os.set_blocking(ours, False)
        with self._changed:
            self._pipe = ours
            if self._stopping:
                self._hang_up()
        code = self._scribe.wait()
        with self._changed:
            self._hang_up()
        return code
