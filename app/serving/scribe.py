"""The process that writes a server's predictions down: a composition root of its own, started by the server.

It takes them from the spool that it shares with the server, in groups, and ends when the server has closed the pipe
on its standard input, or died. The pipe brings the terms first, a line of JSON, and then a byte each time that there
is something to do. Knows nothing of HTTP, nor of torch.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable

from pydantic import BaseModel

from app.log import LogFormat, configure, get_logger
from app.serving.pace import give_way_at_once
from app.serving.spool import Spool
from app.storage.database import Database
from app.storage.predictions import Encoded, PredictionLog

log = get_logger(__name__)

SOON, NOW = b".", b"!"
"""What the server says: something is there and more may come; and a pack is full, or somebody waits."""

GROUP_SECONDS = 0.25
GROUP_RECORDS = 4096
GROUP_BYTES = 16 << 20
PRUNE_SECONDS = 60.0
PRUNE_SHARE = 0.25  # of the bytes that are kept: once so many more were written, it is not left for the minute
TRIES = 3


class Terms(BaseModel):
    """What a scribe is told at its start; with a password in it, so that it goes by no command line."""

    database: str  # its address
    file: int = -1  # of the spool, inherited
    keep_days: float
    keep_bytes: int
    log_level: str = "INFO"
    log_format: LogFormat = "text"


class Scribe:
    """Moves predictions from a spool into the log, and lets old ones go."""

    def __init__(
        self,
        spool: Spool,
        predictions: PredictionLog,
        *,
        keep_days: float,
        keep_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._spool = spool
        self._predictions = predictions
        self._keep_days = keep_days
        self._keep_bytes = keep_bytes
        self._clock = clock
        self._sleep = sleep
        self._next_prune = clock() + PRUNE_SECONDS
        self._unpruned_bytes = 0

    def run(self, pipe: int) -> None:
        """Write as the pipe says, until its other end is closed; then what is left.

        The server says nothing of what it puts within `GROUP_SECONDS` of its last word: so after each word, and after
        all that was written, it is looked once more.
        """
        look_at: float | None = self._clock() + GROUP_SECONDS  # one before may have left something
        while True:
            timeout = PRUNE_SECONDS if look_at is None else max(0.0, look_at - self._clock())
            ready, _, _ = select.select([pipe], [], [], timeout)
            words = os.read(pipe, 65536) if ready else b""
            ended = bool(ready) and not words
            if ended or NOW in words or (look_at is not None and self._clock() >= look_at):
                wrote = self.write()
                if ended:
                    return
                look_at = self._clock() + GROUP_SECONDS if wrote or words else None
            elif words and look_at is None:
                look_at = self._clock() + GROUP_SECONDS
            self.prune()

    def write(self) -> bool:
        """Write all that is there; whether there was anything."""
        wrote = False
        while taken := self._spool.take(GROUP_RECORDS, GROUP_BYTES):
            self._spool.let_go(lost=not self._written([Encoded.from_bytes(one) for one in taken]))
            self._unpruned_bytes += sum(map(len, taken))
            wrote = True
        return wrote

    def _written(self, group: list[Encoded]) -> bool:
        for tried in range(1, TRIES + 1):
            try:
                self._predictions.write(group)
            except Exception:  # it must outlive a database that is away
                log.warning("predictions not written", records=len(group), tried=tried, exc_info=True)
                if tried < TRIES:
                    self._sleep(tried)
            else:
                return True
        return False

    def prune(self) -> None:
        """Let go what is too old or too much, once a minute, or when much was written."""
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


def main() -> None:
    """Run until the server is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server's end is ours, once all is written
    pipe = sys.stdin.fileno()
    told = _line(pipe)
    if not told:
        return  # the server was gone before it could say anything
    terms = Terms.model_validate_json(told)
    configure(terms.log_level, terms.log_format)
    give_way_at_once()
    spool = Spool(terms.file)
    os.close(terms.file)
    database = Database(terms.database)
    scribe = Scribe(spool, PredictionLog(database), keep_days=terms.keep_days, keep_bytes=terms.keep_bytes)
    scribe.run(pipe)
    database.close()


def _line(pipe: int) -> bytes:
    """Read up to the end of a line and no further, which a buffered read would."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(pipe, 1)):
        line += byte
    return line


if __name__ == "__main__":
    main()
