"""Random histories of everything that can happen to a model, seeded; after each step every promise must hold."""

import contextlib
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from app.errors import Conflict, LeaseLost
from app.storage import commits as commits_module
from app.storage.claims import Claim
from app.storage.database import Database
from app.storage.intake import Accepted, NewSample
from app.storage.migrate import upgrade
from app.storage.settling import Fate
from app.storage.states import Lane, Verdict
from app.storage.tables import Model
from tests.app.storage.invariants import check
from tests.app.storage.stores import Stores, open_stores

STEPS = 60


class History:
    """One random history of one model."""

    recipe: Mapping[str, object] = {}
    lane = Lane.SLOW

    def __init__(self, stores: Stores, seed: int) -> None:
        self.stores = stores
        self.random = random.Random(seed)
        self.model: Model = stores.create(new_classes={"policy": "accept"}, **self.recipe).model
        self.samples: list[str] = []
        self.running: list[Claim] = []
        self.versions = 1
        self.acknowledged: set[str] = set()

    def moves(self) -> list[tuple[int, Callable[[], None]]]:
        return [
            (6, self.post),
            (2, self.correct),
            (2, self.withdraw),
            (6, self.claim),
            (5, self.finish),
            (1, self.crash),
            (1, self.stale_worker),
            (1, self.fail),
            (2, self.roll_back),
            (1, self.promote),
            (1, self.pin),
        ]

    def run(self, steps: int) -> None:
        moves = self.moves()
        weights = [weight for weight, _ in moves]
        for _ in range(steps):
            move = self.random.choices([move for _, move in moves], weights)[0]
            move()
            check(self.stores.database, self.model.id)
        listed = {receipt.sample.id for receipt in self.stores.receipts.list(self.model, limit=10_000)}
        assert listed == self.acknowledged, "an acknowledged sample was lost or stored twice"

    def post(self) -> None:
        items = [
            NewSample(
                content=f"content {self.random.randrange(30)}".encode(),
                label=self.random.choice("aaabbc"),
                source=self.random.choice(["ann", "bob"]),
            )
            for _ in range(self.random.randrange(1, 6))
        ]
        for answer in self.stores.intake.put(self.model, items, "tester"):
            assert isinstance(answer, Accepted)
            self.samples.append(answer.id)
            self.acknowledged.add(answer.id)

    def correct(self) -> None:
        if self.samples:
            sample, label = self.random.choice(self.samples), self.random.choice("abc")
            with contextlib.suppress(Conflict):  # it is withdrawn
                self.stores.intake.correct(self.model, sample, label, "ann")

    def withdraw(self) -> None:
        if self.samples:
            self.stores.intake.withdraw(self.model, self.random.choice(self.samples), "ann")

    def claim(self) -> None:
        claim = self.stores.queue.claim(
            self.model.id, worker="w", lease_seconds=60, limit=self.random.randrange(1, 8), lane=self.lane
        )
        if claim is not None:
            self.running.append(claim)

    def finish(self) -> None:
        if not self.running:
            return
        claim = self.running[-1]
        verdict = self.random.choice([Verdict.PROMOTED, Verdict.PROMOTED, Verdict.REJECTED, Verdict.INCONCLUSIVE])
        held_out = frozenset(
            r.id for r in claim.revisions if (r.side or self.random.choice(["learn", "holdout"])) == "holdout"
        )
        try:
            self.stores.queue.commit(claim, self.stores.outcome(claim, verdict, held_out))
            self.versions += 1
        except LeaseLost:
            pass
        self.running.pop()

    def crash(self) -> None:
        claim = self.stores.queue.claim(self.model.id, worker="w", lease_seconds=-1, limit=4, lane=self.lane)
        if claim is not None:
            self.running.insert(0, claim)
            self.stores.queue.expire()

    def stale_worker(self) -> None:
        if len(self.running) > 1:
            stale = self.running.pop(0)
            try:
                self.stores.queue.commit(stale, self.stores.outcome(stale))
                self.versions += 1
            except LeaseLost:
                pass

    def fail(self) -> None:
        if self.running:
            self.stores.queue.fail(self.running[-1].update_id, "it went wrong")

    def roll_back(self) -> None:
        to = self.random.choice([None, self.random.randrange(1, self.versions + 1)])
        with contextlib.suppress(Conflict):
            self.stores.steering.roll_back(
                "digits", to=to, samples=self.random.choice(list(Fate)), pin=False, reason="", actor="ann"
            )

    def promote(self) -> None:
        number = self.random.randrange(1, self.versions + 1)
        with contextlib.suppress(Conflict):
            self.stores.steering.promote("digits", number, force=True, reason="", actor="ann")

    def pin(self) -> None:
        self.stores.steering.set_pinned("digits", self.random.random() < 0.3, reason="", actor="ann")


class TwoLanes(History):
    """One of a model whose slow updates run beside the fast ones."""

    recipe: Mapping[str, object] = {"head": {"kind": "ridge"}}
    lane = Lane.FAST

    def __init__(self, stores: Stores, seed: int) -> None:
        super().__init__(stores, seed)
        self.slow: list[Claim] = []
        self.held: list[int] = []

    def moves(self) -> list[tuple[int, Callable[[], None]]]:
        return [*super().moves(), (3, self.begin), (3, self.publish), (1, self.hold), (2, self.let_go), (1, self.stop)]

    def begin(self) -> None:
        lease = self.random.choice([60, 60, -1])
        claim = self.stores.queue.begin(self.model.id, worker="w", lease_seconds=lease)
        if claim is not None:
            self.slow.append(claim)

    def publish(self) -> None:
        """As the worker does it: with the fast lane held, and on top of what is live then."""
        if not self.slow:
            return
        claim = self.slow.pop()
        held = self.stores.queue.hold(claim, 60)
        if held is None:
            return
        live = self.stores.registry.live(self.model.id)
        taught = self.stores.line.learned(self.model)
        claim = replace(claim, parent=live.version, epoch=live.epoch)
        verdict = self.random.choice([Verdict.PROMOTED, Verdict.REJECTED])
        try:
            self.stores.queue.commit(claim, self.stores.outcome(claim, verdict))
            self.versions += 1
        except LeaseLost:
            pass
        assert self.stores.line.learned(self.model) == taught, "a slow version changed what the line was taught"
        self.stores.queue.release(held, "published")

    def hold(self) -> None:
        if self.slow:
            held = self.stores.queue.hold(self.slow[-1], self.random.choice([60, -1]))
            if held is not None:
                self.held.append(held)

    def let_go(self) -> None:
        while self.held:
            self.stores.queue.release(self.held.pop(), "given up")

    def stop(self) -> None:
        if self.slow:
            self.stores.queue.release(self.slow.pop().update_id, "told to stop")


@pytest.mark.parametrize("kind", [History, TwoLanes])
@pytest.mark.parametrize("seed", range(12))
def test_every_promise_holds_after_every_step_of_a_random_history(
    stores: Stores, kind: type[History], seed: int
) -> None:
    kind(stores, seed).run(STEPS)


def test_the_histories_find_a_commit_that_is_not_fenced(tmp_path: Path) -> None:
    """The check of the check: with the fence taken out, some history must break a promise."""
    found = False
    for seed in range(30):
        url = f"sqlite:///{tmp_path / f'{seed}.db'}"
        migrated = Database(url)
        upgrade(migrated)
        migrated.close()
        stores = open_stores(url, tmp_path)
        with patch.object(commits_module, "rows_changed", lambda result: 1):
            try:
                History(stores, seed).run(STEPS)
            except Exception:  # noqa: BLE001  a broken promise may show as any error
                found = True
        stores.database.close()
        if found:
            break
    assert found
