"""An update whose head learns by gradient steps: the claim and the memory are learned together, then judged.

Called by the Updater for models with a softmax head; without a claim it is a rehearsal by the clock.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from torch import Tensor

from app.errors import NothingLearned
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.storage.claims import Outcome
from app.storage.states import Verdict
from app.storage.tables import Version
from app.storage.weights import WeightFile
from worker.attempt import Attempt
from worker.decoding import Content, Decoder
from worker.gate import Decision, FoldEvidence, too_early
from worker.holdout import Side
from worker.judging import Entrant, Judging, predict_labels
from worker.learning.learner import Learned
from worker.material import Material, gather
from worker.outcomes import anchor_after, unchanged
from worker.report import figures, test_figures
from worker.teaching import Teaching
from worker.track import Track
from worker.verdict import decide


class Lesson:
    """Performs such updates, one at a time."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def perform(self, attempt: Attempt) -> Version:
        """Turn the claim into a judged version."""
        claim, stores = attempt.claim, attempt.stores
        with attempt.timed("load"):
            parent = attempt.loader.load(claim.parent)
            material = gather(claim, attempt.recipe, stores.line)
        if not material.learn and not material.memory:
            return self._unchanged(attempt, parent, material, "nothing to learn and nothing to rehearse")
        with attempt.timed("learn"):
            track = self._tracked(attempt, parent, material)
            state = attempt.loader.learner_state(claim.parent)
            learned, logits = Teaching(attempt, self._decoder).learn(parent, material, state)
        attempt.kill_point("after_training")
        candidate = learned.network
        assert isinstance(candidate, Network)
        with attempt.timed("judge"):
            judging = Judging(stores.registry, stores.line, attempt.loader, self._decoder, attempt.device)
            judged, scores = judging.score(
                material,
                Entrant(claim.parent.id, parent),
                Entrant(attempt.version_id, candidate),
                attempt.anchor_id,
                attempt.stopping,
            )
            judgement = decide(attempt, material, judged, parent.spec, candidate.spec, _evidence(learned))
            tests = self._answers(attempt, candidate, material.tests)
        promoted = judgement.decision is Decision.PROMOTED
        if claim.revisions and not material.learn and not promoted:
            return self._unchanged(attempt, parent, material, f"rehearsal did not help: {judgement.reason}")
        weights, left, base_id = _written(attempt, candidate, learned.state)
        return attempt.commit(
            Outcome(
                version_id=attempt.version_id,
                spec=candidate.spec,
                verdict=Verdict(judgement.decision.value),
                reason=judgement.reason,
                metrics={
                    **figures(judged, list(scores[attempt.version_id]), candidate.spec.labels, datetime.now(UTC)),
                    "test": test_figures(material.tests, tests),
                    "prequential": track.to_json(),
                    "anchor": anchor_after(attempt, judged, promoted),
                    "gate": judgement.metrics,
                    "learning": learned.record.to_json(),
                    "delta": base_id is not None,
                    **attempt.about(material),
                },
                weights=weights,
                learner_state=left,
                base_id=base_id,
                held_out=material.on(Side.HOLDOUT),
                tests=material.on(Side.TEST),
                scores=scores,
                logits=logits,
                # Labels may trickle in one by one: a young model has little to judge the first of them with.
                too_early=too_early(judgement.metrics["n"], max(material.learned_before, len(material.learn))),
            )
        )

    def _unchanged(self, attempt: Attempt, parent: Network, material: Material, why: str) -> Version:
        if not attempt.claim.revisions:
            raise NothingLearned(attempt.claim.model.name)
        state = attempt.loader.learner_state(attempt.claim.parent)
        weights, left, base_id = _written(attempt, parent, state)
        return attempt.commit(
            unchanged(attempt, parent.spec, material, weights, base_id=base_id, learner_state=left, why=why)
        )

    def _tracked(self, attempt: Attempt, parent: Network, material: Material) -> Track:
        """Count how the parent answers what is about to be learned."""
        track = Track.from_metrics(attempt.claim.parent.metrics)
        contents = [*material.learn, *material.held]
        answers = self._answers(attempt, parent, contents)
        known = [one for one in contents if one.content_digest in answers]
        return track.seen([one.label_id for one in known], [answers[one.content_digest] for one in known])

    def _answers(self, attempt: Attempt, network: Network, contents: Sequence[Content]) -> dict[str, int | None]:
        decoded = self._decoder.decode(network.spec, contents)
        there = [one for one in contents if one.sample_id in decoded]
        collate = preprocessor_for(network.spec).batch
        answers = predict_labels(network, [decoded[one.sample_id] for one in there], collate, attempt.device)
        return {one.content_digest: answer for one, answer in zip(there, answers, strict=True)}


def _evidence(learned: Learned) -> FoldEvidence | None:
    record = learned.record
    if record.fold_accuracy is None or record.majority_accuracy is None:
        return None
    return FoldEvidence(record.fold_size, record.fold_accuracy, record.majority_accuracy, record.fold_accuracy_before)


def _written(
    attempt: Attempt, network: Network, state: Mapping[str, Tensor] | None
) -> tuple[WeightFile, WeightFile | None, str | None]:
    """Store the network: what it changes of its base where only the head learns, else all of it."""
    if attempt.recipe.trainable != "head":
        return *attempt.write(network.state_dict(), state), None
    delta = attempt.loader.delta(network, attempt.claim.parent)
    return *attempt.write(delta.tensors, state), delta.base_id
