"""What an import has posted, on the client's disk: so that it goes on where it was, whatever ended it.

One SQLite file for all imports. A chunk is recorded after the server acknowledged it: a kill between the two costs
no more than that chunk, which is posted again and counted as known by the server.
"""

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from app.errors import Invalid

TAKEN = "taken"

_TABLES = """
CREATE TABLE IF NOT EXISTS imports (
    target TEXT NOT NULL, survey TEXT NOT NULL, began REAL NOT NULL, baseline INTEGER NOT NULL,
    PRIMARY KEY (target, survey)
);
CREATE TABLE IF NOT EXISTS posted (
    target TEXT NOT NULL, sample TEXT NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (target, sample)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Posted:
    """What the server said of a sample: `taken`, or the code of a refusal with its words."""

    sample: str
    outcome: str
    detail: str = ""

    @property
    def refused(self) -> bool:
        return self.outcome != TAKEN


@dataclass(frozen=True)
class Beginning:
    """When the import of a set began, and which version was the newest then."""

    at: float  # seconds since 1970
    baseline: int
    resumed: bool


class Journal:
    """Open for the block of a `with`. `target` names the model as one server made it: name and time of creation."""

    def __init__(self, file: Path) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(file, timeout=30)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")  # a power cut loses the last chunks: posted again
            self._database.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise Invalid(f"The journal {str(file)!r} cannot be used: {error}. Name another with --journal.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def begin(self, target: str, survey: str, baseline: int) -> Beginning:
        """Record the beginning of an import; where it began before, that beginning stands."""
        with self._database:
            added = self._database.execute(
                "INSERT OR IGNORE INTO imports VALUES (?, ?, ?, ?)", (target, survey, time.time(), baseline)
            ).rowcount
        row = self._database.execute(
            "SELECT began, baseline FROM imports WHERE target = ? AND survey = ?", (target, survey)
        ).fetchone()
        return Beginning(row[0], row[1], resumed=not added)

    def record(self, target: str, posted: Iterable[Posted]) -> None:
        """Record a chunk's answers, all or none."""
        with self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO posted VALUES (?, ?, ?, ?)",
                [(target, one.sample, one.outcome, one.detail) for one in posted],
            )

    def posted(self, target: str) -> dict[str, Posted]:
        """Everything posted to a model, by its id."""
        rows = self._database.execute("SELECT sample, outcome, detail FROM posted WHERE target = ?", (target,))
        return {sample: Posted(sample, outcome, detail) for sample, outcome, detail in rows}
