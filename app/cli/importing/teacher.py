"""One model over HTTP, as the import needs it: patient when the server is away or full, and exact about refusals.

Knows the wire alone. Posting twice is safe, since every sample bears its own id.
"""

import base64
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from app.cli.connection import Connection, Refused
from app.cli.importing.journal import TAKEN, Posted
from app.cli.importing.selection import Answer
from app.errors import Unavailable

ITEMS = 256  # the most one request may hold
WIRE_BYTES = 8 << 20  # of inputs in one request, far below what a body may have
AGAIN = frozenset({429, 502, 503, 504})
PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0
SWAP_SECONDS = 5.0
SWAP_LOOK_SECONDS = 0.1

T = TypeVar("T")


@dataclass(frozen=True)
class Sent:
    """What became of a chunk."""

    posted: tuple[Posted, ...]
    duplicates: int  # of them, known to the server before
    notes: tuple[str, ...]


class Teacher:
    """A model of a running server. Not to be shared between threads."""

    def __init__(
        self,
        connection: Connection,
        name: str,
        *,
        patience_seconds: float,
        on_wait: Callable[[str], object],
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self.name = name
        self._path = f"/v1/models/{name}"
        self._patience_seconds = patience_seconds
        self._on_wait = on_wait
        self._sleep = sleep
        self._clock = clock

    def show(self) -> dict[str, Any] | None:
        """The model as it stands; None where there is none of that name."""
        try:
            model: dict[str, Any] = self._patiently(lambda: self._connection.get(self._path))
        except Refused as error:
            if error.status == 404:
                return None
            raise
        return model

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        model: dict[str, Any] = self._connection.post("/v1/models", {"name": self.name, **body})
        return model

    def post(self, samples: Sequence[dict[str, Any]]) -> Sent:
        """Post a chunk of samples with their ids; one answer each, in their order."""
        try:
            answer = self._patiently(lambda: self._connection.post(f"{self._path}/samples", {"samples": list(samples)}))
        except Refused as error:
            if "rejected" not in error.members:
                raise
            answer = error.members
        rejected = {one["index"]: one for one in answer["rejected"]}
        posted = tuple(
            Posted(sample["id"], rejected[place]["code"], rejected[place]["detail"])
            if place in rejected
            else Posted(sample["id"], TAKEN)
            for place, sample in enumerate(samples)
        )
        notes = {one["note"]: None for one in answer["samples"] if one.get("note")}
        return Sent(posted, answer["duplicates"], tuple(notes))

    def ask(self, inputs: Sequence[dict[str, Any]], top: int = 2) -> list[Answer]:
        """Ask the live version what the inputs are."""
        body = {"inputs": list(inputs), "top_k": top}
        said = self._patiently(lambda: self._connection.post(f"{self._path}/predict", body))
        return [Answer(tuple((one["label"], one["score"]) for one in row["top"])) for row in said["predictions"]]

    def until_served(self, version: int, example: dict[str, Any]) -> None:
        """Wait until the server that answers has swapped to a version; a moment at most, for it may be live no more."""
        body = {"inputs": [example], "top_k": 1}
        end = self._clock() + SWAP_SECONDS
        while self._patiently(lambda: self._connection.post(f"{self._path}/predict", body))["version"] != version:
            if self._clock() >= end:
                return
            self._sleep(SWAP_LOOK_SECONDS)

    def update_now(self) -> None:
        """Ask for an update, where the key allows it; without, the trigger decides."""
        try:
            self._connection.post(f"{self._path}/learning/run", {"reason": "an import waits for it"})
        except Refused as error:
            if error.status != 403:
                raise
        except Unavailable:
            return  # the next look will be patient

    def newest_version(self) -> int:
        """The highest number there is, live or not."""
        path = f"{self._path}/versions"
        return int(self._patiently(lambda: self._connection.get(path, limit=1))["versions"][0]["version"])

    def versions_after(self, number: int) -> list[dict[str, Any]]:
        """Versions with a higher number, oldest first."""
        found: list[dict[str, Any]] = []
        for page in self._pages("versions", "versions"):
            found += [version for version in page if version["version"] > number]
            if page[-1]["version"] <= number + 1:
                break
        return found[::-1]

    def claimed(self) -> bool:
        """Whether an update works on samples now."""
        path = f"{self._path}/samples"
        return bool(self._patiently(lambda: self._connection.get(path, state="claimed", limit=1))["samples"])

    def receipts(self, **filters: str) -> Iterator[dict[str, Any]]:
        """Every receipt that fits, newest first."""
        for page in self._pages("samples", "samples", **filters):
            yield from page

    def _pages(self, path: str, member: str, **filters: str) -> Iterator[list[dict[str, Any]]]:
        cursor: str | None = None
        while True:

            def get(after: str | None = cursor) -> Any:
                return self._connection.get(f"{self._path}/{path}", cursor=after, limit=200, **filters)

            page = self._patiently(get)
            if page[member]:
                yield page[member]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _patiently(self, act: Callable[[], T]) -> T:
        """Do it again while the server is away, starting or full; what it then says is raised."""
        began = self._clock()
        pause = PAUSE_SECONDS
        while True:
            try:
                return act()
            except Unavailable as error:
                problem: Exception = error
                wait, words = pause, "The server does not answer"
            except Refused as refusal:
                if refusal.status not in AGAIN:
                    raise
                problem = refusal
                wait, words = refusal.retry_after_seconds or pause, str(refusal).rstrip(".")
            left = self._patience_seconds - (self._clock() - began)
            if left <= 0:
                raise problem
            self._on_wait(f"{words}; trying again in {min(wait, left):.0f} s.")
            self._sleep(min(wait, left))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def wire_input(kind: str, content: bytes) -> dict[str, Any]:
    """A payload as the API takes it."""
    if kind == "image":
        return {"image": base64.b64encode(content).decode()}
    return {"features": np.frombuffer(content, "<f8").tolist()}


def wire_size(kind: str, content: bytes) -> int:
    """About how many bytes the payload has on the wire."""
    return len(content) * 4 // 3 if kind == "image" else len(content) * 5 // 2
