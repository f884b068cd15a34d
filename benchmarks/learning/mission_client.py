"""A pretrained network behind a real service: weights added by the command, labels posted one a request, questions.

Called by the rows that go through HTTP. Knows the wire and the command line, nothing of the database or of torch.
"""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mission_data import CIFAR, Picture

from app.cli.connection import Connection
from app.cli.instance import Instance

CLIENTS = 4
ASKED_AT_ONCE = 64
NUDGE_SECONDS = 5.0
PATIENCE_SECONDS = 900.0
SWAP_SECONDS = 60.0
_LOOK_SECONDS = 0.1


def add_weights(instance: Instance, file: Path) -> str:
    """Bring a weights file in as a user would; the answer names it."""
    command = [sys.executable, "-m", "app.cli.entry", "weights", "add", str(file), "--data-dir", str(instance.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return next(line.strip() for line in done.stdout.splitlines() if line.strip().startswith("sha256:"))


@dataclass
class Pupil:
    """One model of a running service, taught by several clients at a time."""

    instance: Instance
    name: str
    labels: Sequence[str] = CIFAR
    _local: threading.local = field(default_factory=threading.local)

    @property
    def path(self) -> str:
        return f"/v1/models/{self.name}"

    @property
    def connection(self) -> Connection:
        """One a thread."""
        if not hasattr(self._local, "connection"):
            self._local.connection = self.instance.connection(timeout_seconds=300)
        found: Connection = self._local.connection
        return found

    def create(self, **body: Any) -> None:
        self.connection.post("/v1/models", {"name": self.name, **body})

    def teach(self, picture: Picture) -> str:
        """Post one file with its label and its place as the client's id; give the sample's id."""
        answer = self.connection.ask(
            "POST",
            f"{self.path}/samples",
            files={"file": ("picture", picture.content)},
            data={"label": self.labels[picture.label], "id": str(picture.place)},
        )
        if answer["rejected"]:
            raise SystemExit(f"a label was not taken: {answer['rejected'][0]['detail']}")
        return str(answer["samples"][0]["id"])

    def teach_all(self, pictures: Sequence[Picture]) -> None:
        """Post all, one a request, several clients side by side."""
        with ThreadPoolExecutor(CLIENTS) as clients:
            for _ in clients.map(self.teach, pictures):
                pass

    def answers(self, pictures: Sequence[Picture]) -> list[int]:
        """Which class each picture is said to be of by the version that is live now, −1 for none."""
        self._until_live_answers(pictures[0])
        parts = [pictures[start : start + ASKED_AT_ONCE] for start in range(0, len(pictures), ASKED_AT_ONCE)]
        with ThreadPoolExecutor(2) as clients:
            said = list(clients.map(self._asked, parts))
        if len({one["version"] for one in said}) != 1:
            raise SystemExit("versions changed while questions were asked: the answers are of no one version")
        given = [one["label"] for answer in said for one in answer["predictions"]]
        return [self.labels.index(label) if label is not None else -1 for label in given]

    def _asked(self, pictures: Sequence[Picture]) -> dict[str, Any]:
        files = [("file", ("picture", one.content)) for one in pictures]
        said: dict[str, Any] = self.connection.ask("POST", f"{self.path}/predict", files=files)
        return said

    def _until_live_answers(self, picture: Picture) -> None:
        """A server follows the registry's word: what was just promoted may still be on its way into memory."""
        live = self.connection.get(self.path)["live"]
        deadline = time.monotonic() + SWAP_SECONDS
        while (by := self._asked([picture])["version"]) < live:
            if time.monotonic() > deadline:
                raise SystemExit(f"version {live} is live, and {by} still answers after {SWAP_SECONDS:.0f} s")
            time.sleep(_LOOK_SECONDS)

    def settle(self) -> None:
        """Wait until no label waits; ask for an update where some wait for company that will not come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        nudged = time.monotonic()
        while time.monotonic() < deadline:
            waiting = [state for state in ("queued", "claimed") if self._receipts(state=state, limit=1)]
            if not waiting:
                return
            if waiting == ["queued"] and time.monotonic() - nudged > NUDGE_SECONDS:
                nudged = time.monotonic()
                self.connection.post(f"{self.path}/learning/run", {"reason": "no more labels come"})
            time.sleep(_LOOK_SECONDS)
        raise SystemExit(f"labels of {self.name} still wait after {PATIENCE_SECONDS:.0f} s")

    def _receipts(self, **filters: str | int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.connection.get(f"{self.path}/samples", **filters)["samples"]
        return found

    def receipts(self) -> list[dict[str, Any]]:
        """Every receipt, newest first."""
        found, cursor = [], None
        while True:
            page = self.connection.get(f"{self.path}/samples", cursor=cursor, limit=200)
            found += page["samples"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def versions(self) -> list[dict[str, Any]]:
        """Every version, newest first."""
        found, cursor = [], None
        while True:
            page = self.connection.get(f"{self.path}/versions", cursor=cursor, limit=100)
            found += page["versions"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def refine(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """Change the recipe, ask for one slow update, and give the version it made."""
        known = self._newest()["version"]
        self.connection.ask("PATCH", self.path, json={"recipe": dict(recipe)})
        self.connection.post(f"{self.path}/learning/run", {"lane": "slow", "reason": "shared layers follow"})
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            newest = self._newest()
            if newest["version"] > known and newest["metrics"].get("lane") == "slow":
                return newest
            time.sleep(1.0)
        raise SystemExit("the slow update did not end in time; the service's log says why")

    def _newest(self) -> dict[str, Any]:
        found: dict[str, Any] = self.connection.get(f"{self.path}/versions", limit=1)["versions"][0]
        return found

    def learned(self) -> set[int]:
        """Places of the pictures that were learned."""
        return {int(one["client_id"]) for one in self.receipts() if one["state"] == "learned"}

    def summary(self) -> dict[str, Any]:
        """What became of labels and versions."""
        versions = [one for one in self.versions() if one["version"] > 1]
        reasons = [one["reason"] for one in versions if one["verdict"] != "promoted"]
        return {
            "samples": dict(Counter(one["state"] for one in self.receipts())),
            "versions": dict(Counter(one["verdict"] for one in versions)),
            "not promoted because": reasons[:5],
        }


def latencies(pupil: Pupil, pictures: Sequence[Picture], a_second: float) -> list[float]:
    """Seconds from the answer to a POST to the first prediction by a version that has learned it, at a steady pace.

    A client asks the first picture without pause meanwhile; labels held out, or refused, are not timed.
    """
    seen: list[tuple[float, int]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            said = pupil.connection.ask("POST", f"{pupil.path}/predict", files=[("file", ("p", pictures[0].content))])
            seen.append((time.monotonic(), said["version"]))
            done.wait(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    posted: dict[str, float] = {}
    began = time.monotonic()

    def teach(number: int) -> None:
        done.wait(max(0.0, began + number / a_second - time.monotonic()))
        sample_id = pupil.teach(pictures[number])
        posted[sample_id] = time.monotonic()

    with ThreadPoolExecutor(CLIENTS) as clients:
        for _ in clients.map(teach, range(len(pictures))):
            pass
    pupil.settle()
    time.sleep(2.0)  # the last version has still to be asked
    done.set()
    asking.join()
    found = []
    for one in pupil.receipts():
        if one["id"] in posted and one["state"] == "learned" and one["version"] is not None:
            served = next((at for at, version in seen if version >= one["version"]), None)
            if served is not None:
                found.append(served - posted[one["id"]])
    return found
