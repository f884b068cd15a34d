"""One update: claim → learn → judge → publish.

Performed by the worker's loop. Puts together what knows how: holdout, learner, gate, and the stores, which alone know
SQL and files.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from uuid_utils import uuid7

from app.errors import LeaseLost, StaleParent
from app.loading import VersionLoader
from app.log import get_logger
from app.networks.network import Network
from app.networks.serialization import to_bytes
from app.recipe import Recipe
from app.storage.claims import Claim, Outcome
from app.storage.killpoint import KillPoint
from app.storage.line import LineReader
from app.storage.queue import SampleQueue
from app.storage.registry import ModelRegistry
from app.storage.tables import ArtifactKind, Verdict, Version
from app.storage.weights import WeightFile, WeightStore
from worker.decoding import Decoder
from worker.gate import Decision, FoldEvidence, Judged, Judgement, Question, judge, too_early
from worker.heartbeat import Heartbeat
from worker.judging import Entrant, Judging, best_of_the_line
from worker.learning.failure import LearningStopped
from worker.learning.learner import Learned
from worker.material import Material, gather
from worker.teaching import Teaching

log = get_logger(__name__)


@dataclass(frozen=True)
class Stores:
    """What an update reads and writes."""

    queue: SampleQueue
    registry: ModelRegistry
    line: LineReader
    weights: WeightStore


class Updater:
    """Performs updates, one at a time."""

    def __init__(
        self,
        stores: Stores,
        loader: VersionLoader,
        *,
        device: torch.device,
        lease_seconds: float,
        stopping: Callable[[], bool] = lambda: False,
        kill_point: KillPoint | None = None,
    ) -> None:
        self._stores = stores
        self._loader = loader
        self._device = device
        self._lease_seconds = lease_seconds
        self._stopping = stopping
        self._kill_point = kill_point or KillPoint()
        self._decoder = Decoder(stores.line.contents)

    def perform(self, claim: Claim, give_way: Callable[[], None] = lambda: None) -> None:
        """Turn the claim into a judged version. Raises LeaseLost or StaleParent when overtaken: nothing was published.

        When the process is to stop, the claim is let go between two steps, with no attempt counted. Any other error
        means that the update failed; telling the queue is the caller's part.
        """
        self._kill_point("after_claim")
        with Heartbeat(self._stores.queue, claim.update_id, self._lease_seconds) as heartbeat:
            run = _Run(self._stores, self._loader, self._decoder, self._device, self._kill_point, claim)
            try:
                version = run.perform(lambda: heartbeat.lost.is_set() or self._stopping())
            except LearningStopped:
                if heartbeat.lost.is_set():
                    raise LeaseLost(claim.update_id) from None
                self._stores.queue.release(claim.update_id, "the worker was told to stop")
                log.info("update let go", model=claim.model.name, update=claim.update_id)
                return
        log.info(
            "update ends",
            model=claim.model.name,
            update=claim.update_id,
            version=version.number,
            verdict=version.verdict,
            reason=version.reason,
        )


class _Run:
    """The steps of one update, and what it measured."""

    def __init__(
        self,
        stores: Stores,
        loader: VersionLoader,
        decoder: Decoder,
        device: torch.device,
        kill_point: KillPoint,
        claim: Claim,
    ) -> None:
        self.stores, self.loader, self.decoder = stores, loader, decoder
        self.device, self.kill_point, self.claim = device, kill_point, claim
        self.recipe = Recipe.model_validate(claim.model.recipe)
        self.seed = self.recipe.seed + claim.update_id
        self.version_id = str(uuid7())
        self.teaching = Teaching(claim.model, decoder, device, self.seed)
        self.judging = Judging(stores.registry, stores.line, loader, decoder, device)
        self.seconds: dict[str, float] = {}

    def perform(self, should_stop: Callable[[], bool]) -> Version:
        with self._timed("load"):
            parent = self.loader.load(self.claim.parent)
            material = gather(self.claim, self.recipe, self.stores.line)
        if not material.learn and not material.memory:
            return self._commit(self._unchanged(parent, material, "nothing to learn and nothing to rehearse"))
        state = self.loader.learner_state(self.claim.parent)
        with self._timed("learn"):
            learned = self.teaching.learn(parent, material, state, should_stop)
        self.kill_point("after_training")
        candidate = learned.network
        assert isinstance(candidate, Network)
        with self._timed("judge"):
            judged, scores = self.judging.score(
                material,
                Entrant(self.claim.parent.id, parent),
                Entrant(self.version_id, candidate),
                self._anchor_id(),
                should_stop,
            )
            judgement = self._judge(parent, candidate, learned, material, judged)
        if not material.learn and judgement.decision is not Decision.PROMOTED:
            return self._commit(self._unchanged(parent, material, f"rehearsal did not help: {judgement.reason}"))
        weights, left = self._write(candidate, learned.state)
        promoted = judgement.decision is Decision.PROMOTED
        known = [one for one in judged if one.label in candidate.spec.labels]
        metrics = {
            "accuracy": sum(one.candidate == one.label for one in known) / len(known) if known else None,
            "anchor": best_of_the_line(
                judged, self._anchor_id(), self.claim.parent.id, self.version_id if promoted else None
            ),
            "gate": judgement.metrics,
            "learning": learned.record.to_json(),
        }
        return self._commit(
            Outcome(
                version_id=self.version_id,
                spec=candidate.spec,
                verdict=Verdict(judgement.decision.value),
                reason=judgement.reason,
                metrics={**metrics, **self._about(material)},
                weights=weights,
                learner_state=left,
                held_out=material.held_out,
                scores=scores,
                # Labels may trickle in one by one: a young model has little to judge the first of them with.
                too_early=too_early(judgement.metrics["n"], max(material.learned_before, len(material.learn))),
            )
        )

    def _anchor_id(self) -> str:
        recorded = self.claim.parent.metrics.get("anchor")
        return recorded if isinstance(recorded, str) else self.claim.parent.id

    def _judge(
        self, parent: Network, candidate: Network, learned: Learned, material: Material, judged: Sequence[Judged]
    ) -> Judgement:
        record = learned.record
        fold = None
        if record.fold_accuracy is not None and record.majority_accuracy is not None:
            fold = FoldEvidence(
                record.fold_size, record.fold_accuracy, record.majority_accuracy, record.fold_accuracy_before
            )
        labels = self.stores.registry.labels(self.claim.model.id)
        return judge(
            Question(
                judged=judged,
                live_labels=frozenset(parent.spec.labels),
                candidate_labels=frozenset(candidate.spec.labels),
                margin=self.recipe.gate.margin,
                alpha=self.recipe.gate.alpha,
                untrained=material.learned_before == 0,
                unproven=not material.settled,
                fold=fold,
                names={label.id: label.name for label in labels},
            )
        )

    def _unchanged(self, parent: Network, material: Material, why: str) -> Outcome:
        """The parent once more: a version whose ledger says what became of the claim, with the weights it had.

        Withdrawals and repeats are facts; they need no better network to become true. Labels newly held out do: they
        are believed only with a candidate that the gate promoted, so they join the next claim.
        """
        weights, kept = self._write(parent, self.loader.learner_state(self.claim.parent))
        before = self.claim.parent.metrics
        return Outcome(
            version_id=self.version_id,
            spec=parent.spec,
            verdict=Verdict.INCONCLUSIVE if material.held else Verdict.PROMOTED,
            reason=f"only held-out samples: {why}" if material.held else f"weights unchanged: {why}",
            metrics={
                "accuracy": before.get("accuracy"),
                "anchor": self._anchor_id(),
                "gate": None,
                "learning": None,
                **self._about(material),
            },
            weights=weights,
            learner_state=kept,
            held_out=material.held_out,
        )

    def _write(self, network: Network, state: Mapping[str, Tensor] | None) -> tuple[WeightFile, WeightFile | None]:
        with self._timed("write"):
            try:
                weights = self.stores.weights.write(
                    self.version_id, ArtifactKind.WEIGHTS, to_bytes(network.state_dict())
                )
                left = state and self.stores.weights.write(self.version_id, ArtifactKind.LEARNER_STATE, to_bytes(state))
            except BaseException:
                self.stores.weights.delete(self.version_id)  # on a full disk every attempt would leave a file behind
                raise
        self.kill_point("after_write")
        return weights, left or None

    def _about(self, material: Material) -> dict[str, object]:
        return {
            "counts": {
                "claimed": len(self.claim.revisions),
                "learn": len(material.learn),
                "held": len(material.held),
                "memory": len(material.memory),
                "settled": len(material.settled),
                "removed": material.removed,
                "repeated": material.repeated,
            },
            "seconds": {phase: round(seconds, 3) for phase, seconds in self.seconds.items()},
            "seed": self.seed,
        }

    def _commit(self, outcome: Outcome) -> Version:
        self.kill_point("before_commit")
        try:
            version = self.stores.queue.commit(self.claim, outcome)
        except (LeaseLost, StaleParent):
            self.stores.weights.delete(self.version_id)  # no row will ever name these files
            raise
        self.kill_point("after_commit")
        return version

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - started
