"""One model over HTTP, in the few calls the demo and the benchmarks make.

Knows the wire alone: whatever it learns of the service, any client could.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from app.cli.connection import Connection
from app.cli.demo.datasets import Item
from app.errors import DeadlineExceeded

LOOK_SECONDS = 0.2
ITEMS = 256  # the most one request may hold

T = TypeVar("T")


@dataclass(frozen=True)
class Answered:
    """What the service said of an item, before it was taught it."""

    prediction_id: str
    version: int
    right: bool


class TaughtModel:
    """A model of a running service: asked, labelled, watched."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self.name = name
        self._path = f"/v1/models/{name}"

    def create(self, body: dict[str, Any]) -> None:
        self._connection.post("/v1/models", {"name": self.name, **body})

    def predict(self, items: Sequence[Item]) -> list[Answered]:
        """Ask what the items are."""
        answers = []
        for part in in_parts(items):
            said = self._connection.post(f"{self._path}/predict", {"inputs": [item.input for item in part], "top_k": 1})
            answers += [
                Answered(one["prediction_id"], said["version"], one["label"] == item.label)
                for one, item in zip(said["predictions"], part, strict=True)
            ]
        return answers

    def accuracy(self, items: Sequence[Item]) -> float:
        """Share of the items that are answered rightly now."""
        return sum(answer.right for answer in self.predict(items)) / len(items)

    def label(self, answers: Sequence[Answered], labels: Sequence[str], source: str) -> list[str]:
        """Label earlier predictions by their ids; give the ids of the samples."""
        return self._post(
            [
                {"prediction_id": answer.prediction_id, "label": label, "source": source}
                for answer, label in zip(answers, labels, strict=True)
            ]
        )

    def teach(self, items: Sequence[Item], labels: Sequence[str], source: str) -> list[str]:
        """Post items with their labels; give the ids of the samples."""
        return self._post(
            [{**item.input, "label": label, "source": source} for item, label in zip(items, labels, strict=True)]
        )

    def _post(self, samples: list[dict[str, Any]]) -> list[str]:
        ids = []
        for part in in_parts(samples):
            answer = self._connection.post(f"{self._path}/samples", {"samples": part})
            if answer["rejected"]:
                raise AssertionError(f"a sample was not taken: {answer['rejected'][0]['detail']}")
            ids += [sample["id"] for sample in answer["samples"]]
        return ids

    def live(self) -> int:
        return int(self._connection.get(self._path)["live"])

    def versions(self, limit: int = 50) -> list[dict[str, Any]]:
        """Oldest first."""
        found: list[dict[str, Any]] = self._connection.get(f"{self._path}/versions", limit=limit)["versions"]
        return found[::-1]

    def states(self, **filters: str | int) -> dict[str, int]:
        """How many samples are in which state."""
        counts: dict[str, int] = {}
        for receipt in self.receipts(**filters):
            counts[receipt["state"]] = counts.get(receipt["state"], 0) + 1
        return counts

    def receipts(self, **filters: str | int) -> Iterator[dict[str, Any]]:
        """Every receipt that fits, newest first."""
        cursor: str | None = None
        while True:
            page = self._connection.get(f"{self._path}/samples", cursor=cursor, limit=200, **filters)
            yield from page["samples"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def roll_back(self, reason: str, samples: str = "quarantine") -> dict[str, Any]:
        answer: dict[str, Any] = self._connection.post(f"{self._path}/rollback", {"samples": samples, "reason": reason})
        return answer

    def unsettled(self) -> dict[str, int]:
        """How many samples wait or are being learned; empty when all have met their fate."""
        counts = {state: sum(1 for _ in self.receipts(state=state)) for state in ("queued", "claimed")}
        return {state: count for state, count in counts.items() if count}

    def events(self) -> Iterator[dict[str, Any]]:
        """The audit log of the model, newest first."""
        cursor: str | None = None
        while True:
            page = self._connection.get("/v1/events", model=self.name, cursor=cursor, limit=200)
            yield from page["events"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def run(self, reason: str) -> None:
        """Ask for an update now."""
        self._connection.post(f"{self._path}/learning/run", {"reason": reason})


def until(look: Callable[[], T], seconds: float, what: str) -> T:
    """Look again and again until something true is seen, and give it. Raises DeadlineExceeded."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise NotSeen(what, seconds)
        time.sleep(LOOK_SECONDS)


class NotSeen(DeadlineExceeded):
    """What was waited for did not happen in time."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(seconds)
        self.args = (f"Waited {seconds:g} s in vain: {what}.",)


def in_parts(items: Sequence[T], size: int = ITEMS) -> Iterator[Sequence[T]]:
    """Cut a sequence into parts that one request may hold."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
