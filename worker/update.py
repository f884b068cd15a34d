"""One update: claim → learn → judge → publish.

Performed by the worker's loop. Puts together what knows how: holdout, learner, gate, and the stores, which alone know
SQL and files.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from uuid_utils import uuid7

from app.errors import LeaseLost, MissingWeights, StaleParent
from app.log import get_logger
from app.networks.growth import grow
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.networks.serialization import to_bytes
from app.networks.standardize import standardize
from app.recipe import SGD, Recipe
from app.storage.claims import Claim, Outcome
from app.storage.killpoint import KillPoint
from app.storage.line import LineReader
from app.storage.queue import SampleQueue
from app.storage.registry import ModelRegistry
from app.storage.tables import ArtifactKind, Verdict, Version
from app.storage.weights import WeightStore
from worker.decoding import Content, Decoder, Labelled
from worker.gate import Decision, FoldEvidence, Judged, Judgement, Question, judge
from worker.heartbeat import Heartbeat
from worker.holdout import fraction
from worker.judging import Scores, best_of_the_line, complete, predict_labels
from worker.learning.failure import LearningStopped
from worker.learning.learner import Learned, Learner
from worker.learning.optimizers import OptimizerSettings
from worker.learning.penalties import PenaltySettings
from worker.learning.samples import Samples, chunks
from worker.learning.settings import LearnerSettings
from worker.loader import VersionLoader
from worker.material import Material, gather

log = get_logger(__name__)

COLD_SAMPLES = 100  # learned samples up to which learning takes its time
COLD_PATIENCE = 3  # times the recipe's passes and patience while cold
_IMPRINT_MEMORY = 256  # remembered samples that show a new class where the others are
_BATCH = 256


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
        self._decoder = Decoder()

    def perform(self, claim: Claim) -> None:
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
        self.seconds: dict[str, float] = {}

    def perform(self, should_stop: Callable[[], bool]) -> Version:
        with self._timed("load"):
            parent = self.loader.load(self.claim.parent)
            material = gather(self.claim, self.recipe, self.stores.line)
        if not material.learn and not material.memory:
            return self._commit(self._unchanged(parent, material, "nothing to learn and nothing to rehearse"))
        with self._timed("learn"):
            learned = self._learn(parent, material, should_stop)
        self.kill_point("after_training")
        candidate = learned.network
        assert isinstance(candidate, Network)
        with self._timed("judge"):
            judged, scores = self._score(parent, candidate, material, should_stop)
            judgement = self._judge(parent, candidate, learned, material, judged)
        if not material.learn and judgement.decision is not Decision.PROMOTED:
            # Withdrawals, held-out samples and repeats are facts; they need no better network to become true.
            return self._commit(self._unchanged(parent, material, f"rehearsal did not help: {judgement.reason}"))
        with self._timed("write"):
            weights = self.stores.weights.write(self.version_id, ArtifactKind.WEIGHTS, to_bytes(candidate.state_dict()))
            state = self.stores.weights.write(self.version_id, ArtifactKind.LEARNER_STATE, to_bytes(learned.state))
        self.kill_point("after_write")
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
                learner_state=state,
                held_out=material.held_out,
                scores=scores,
            )
        )

    def _learn(self, parent: Network, material: Material, should_stop: Callable[[], bool]) -> Learned:
        spec = parent.spec
        new_labels = material.new_labels(spec.labels)
        rows = {label: row for row, label in enumerate(spec.grown(new_labels).labels)}
        new = self._samples(parent, material.learn, rows)
        memory = self._samples(parent, material.memory, rows)
        if should_stop():
            raise LearningStopped
        network = copy.deepcopy(parent)
        for indices in chunks(range(len(new)), _BATCH):
            standardize(network, new.batch(indices)[0])
        network = self._grown(network, new_labels, new, memory)
        learner = Learner(self._settings(parent, material), self.device)
        state = self.loader.learner_state(self.claim.parent)
        return learner.learn(network, new=new, memory=memory, parent=parent, state=state, should_stop=should_stop)

    def _grown(self, network: Network, new_labels: tuple[int, ...], new: Samples, memory: Samples) -> Network:
        """Add the rows, each starting from the mean of its class among the new samples."""
        if not new_labels:
            return network
        shown = new.followed_by(memory)
        # Every tenth, so that all classes of a long memory are among them.
        step = max(1, len(memory) // _IMPRINT_MEMORY)
        indices = [*range(len(new)), *range(len(new), len(shown), step)]
        labels = network.spec.grown(new_labels).labels
        with torch.no_grad():
            network.to(self.device)
            features = [
                network.features(shown.batch(some)[0].to(self.device)).cpu() for some in chunks(indices, _BATCH)
            ]
            network.to("cpu")
        targets = torch.tensor([labels[row] for row in shown.targets[indices].tolist()])
        return grow(network, new_labels, torch.cat(features) if features else None, targets)

    def _samples(self, network: Network, contents: Sequence[Labelled], rows: dict[int, int]) -> Samples:
        key = self.claim.model.holdout_key
        return Samples(
            items=[self.decoder.decode(network.spec, one) for one in contents],
            targets=torch.tensor([rows[one.label_id] for one in contents], dtype=torch.int64),
            keys=torch.tensor([fraction(key, one.content_digest, "fold") for one in contents], dtype=torch.float64),
            collate=preprocessor_for(network.spec).batch,
        )

    def _settings(self, parent: Network, material: Material) -> LearnerSettings:
        optimizer, stopping = self.recipe.optimizer, self.recipe.early_stopping
        cold = COLD_PATIENCE if material.learned_before < COLD_SAMPLES else 1
        # Weights that were never taught are nothing to hold on to.
        penalties = self.recipe.penalties if material.learned_before else ()
        return LearnerSettings(
            optimizer=OptimizerSettings(
                kind=optimizer.kind,
                lr=optimizer.lr,
                momentum=optimizer.momentum if isinstance(optimizer, SGD) else 0.0,
                weight_decay=optimizer.weight_decay,
            ),
            penalties=tuple(PenaltySettings(penalty.kind, penalty.strength) for penalty in penalties),
            trainable=self.recipe.trainable,
            batch_size=self.recipe.batch_size,
            passes=stopping.passes * cold,
            patience=stopping.patience * cold,
            fold=stopping.fold,
            batch_statistics=parent.spec.weights is None,
            seed=self.seed,
        )

    def _score(
        self, parent: Network, candidate: Network, material: Material, should_stop: Callable[[], bool]
    ) -> tuple[list[Judged], dict[str, Scores]]:
        """Ask candidate, live and anchor about every held-out sample; what was asked before is not asked again."""
        contents: list[tuple[str, int, Content, bool]] = [
            *((one.sample_id, one.label_id, one, True) for one in material.settled),
            *((one.sample_id, one.label_id, one, False) for one in material.held),
        ]
        sample_ids = [sample_id for sample_id, _, _, _ in contents]
        items = [self.decoder.decode(parent.spec, content) for _, _, content, _ in contents]
        collate = preprocessor_for(parent.spec).batch

        def asking(network: Callable[[], Network]) -> Callable[[Sequence[Tensor]], list[int | None]]:
            def ask(asked: Sequence[Tensor]) -> list[int | None]:
                if should_stop():
                    raise LearningStopped
                return predict_labels(network(), asked, collate, self.device)

            return ask

        live_id, anchor_id = self.claim.parent.id, self._anchor_id()
        scores = {self.version_id: complete({}, sample_ids, items, asking(lambda: candidate))}
        candidate.to("cpu")
        scores[live_id] = complete(self._known(live_id, sample_ids), sample_ids, items, asking(lambda: parent))
        if anchor_id not in scores:
            anchor = self.stores.registry.version_by_id(anchor_id)
            try:
                scores[anchor_id] = complete(
                    self._known(anchor_id, sample_ids), sample_ids, items, asking(lambda: self.loader.load(anchor))
                )
            except MissingWeights as error:
                log.warning("anchor is gone, live takes its place", version=anchor.number, error=str(error))
                scores[anchor_id] = scores[live_id]
        judged = [
            Judged(
                label=label,
                live=scores[live_id][sample_id],
                anchor=scores[anchor_id][sample_id],
                candidate=scores[self.version_id][sample_id],
                settled=settled,
            )
            for sample_id, label, _, settled in contents
        ]
        return judged, scores

    def _known(self, version_id: str, sample_ids: Sequence[str]) -> dict[str, int | None]:
        return self.stores.line.scores(version_id, sample_ids)

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
        """The parent once more: a version whose ledger says what became of the claim, with the weights it had."""
        with self._timed("write"):
            weights = self.stores.weights.write(self.version_id, ArtifactKind.WEIGHTS, to_bytes(parent.state_dict()))
            state = self.loader.learner_state(self.claim.parent)
            kept = state and self.stores.weights.write(self.version_id, ArtifactKind.LEARNER_STATE, to_bytes(state))
        self.kill_point("after_write")
        before = self.claim.parent.metrics
        return Outcome(
            version_id=self.version_id,
            spec=parent.spec,
            verdict=Verdict.PROMOTED,
            reason=f"weights unchanged: {why}",
            metrics={
                "accuracy": before.get("accuracy"),
                "anchor": self._anchor_id(),
                "gate": None,
                "learning": None,
                **self._about(material),
            },
            weights=weights,
            learner_state=kept or None,
            held_out=material.held_out,
        )

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
