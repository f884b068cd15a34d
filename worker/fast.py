"""The fast lane: labels go into the sums of a closed-form head, the head is solved, a delta version comes out.

Called by the Updater for models whose head is solved. Trains nothing: the backbone stands still. One label or two
thousand cost one solve; a label taken out or corrected is subtracted exactly.
"""

import copy
from collections.abc import Sequence
from datetime import UTC, datetime

from app.networks.serialization import backbone_digest
from app.networks.standardize import FROZEN_AFTER, Standardize, standardize
from app.storage.claims import Outcome
from app.storage.states import RevisionAction, Verdict
from app.storage.tables import Version
from worker.attempt import Attempt
from worker.featuring import FeatureSource
from worker.gate import Decision, too_early
from worker.holdout import Side
from worker.learning.closed_form import Solved
from worker.material import Material, gather
from worker.outcomes import anchor_after, unchanged
from worker.recipe_settings import feeding
from worker.refit import fed_through, with_head
from worker.report import figures, test_figures
from worker.sight import Seer, Sight, examined
from worker.sums_of_the_line import SumsOfTheLine
from worker.tally import Place
from worker.taught import Taught
from worker.track import Track
from worker.verdict import decide, evidence

SAVE_AFTER = 500
"""Contents changed since the sums were last saved, after which a version carries them again."""

HEADS = ("steady", "fading")


class FastLane:
    """Performs fast updates, one at a time."""

    def __init__(self, source: FeatureSource, sums: SumsOfTheLine) -> None:
        self._source = source
        self._sums = sums

    def perform(self, attempt: Attempt) -> Version:
        """Turn the claim into a judged version."""
        claim, recipe = attempt.claim, attempt.recipe
        with attempt.timed("load"):
            parent = attempt.loader.load(claim.parent)
            live = Seer(parent, attempt.loader.backbone_of(claim.parent)[1])
            material = gather(claim, recipe, attempt.stores.line)
        with attempt.timed("features"):
            sight = Sight(self._source, claim.model, attempt.between_steps)
            bench = self._bench(attempt, sight, live, material)
            taught = self._sums.of(attempt, claim.parent, sight, bench)
        with attempt.timed("learn"):
            fed = sight.fed(bench, [*material.learn, *material.held])
            edits = _edits(attempt, material, frozenset(fed))
            rivals = taught.heads(recipe, parent.spec.labels) if taught.fading is not None else []
            track = _tracked(sight, live, bench, material, rivals, claim.parent)
            labels = parent.spec.grown(material.new_labels(parent.spec.labels)).labels
            of_live = taught.copy()
            changed, undo = self._sums.edited(attempt, taught, edits, sight, bench)
            if not changed and labels == parent.spec.labels and bench.backbone == live.backbone:
                return self._unchanged(attempt, live, material, taught)
            self._sums.chosen(attempt, taught, sight, bench)
            solved = self._sums.heads(attempt, taught, labels, sight, bench)
            serves = track.better.serving if len(solved) > 1 else HEADS[0]
            candidate = Seer(with_head(bench.network, labels, solved[HEADS.index(serves)]), bench.backbone)
        attempt.kill_point("after_training")
        version = self._publish(attempt, sight, live, candidate, taught, material, track, serves)
        if version.verdict == Verdict.PROMOTED:
            self._sums.keep(claim.model, taught, version.id)
        else:
            of_live.tally.edit(undo)
            self._sums.keep(claim.model, of_live, claim.parent.id)
        return version

    def _bench(self, attempt: Attempt, sight: Sight, live: Seer, material: Material) -> Seer:
        """The network that the candidate's head is solved for: live's, unless input scales are still being learned or
        the recipe asks for another power or projection. In a family input scales are learned by all at once, slowly."""
        network, backbone = live.network, live.backbone
        alone = attempt.claim.model.family_id is None
        if alone and any(
            isinstance(module, Standardize) and module.count < FROZEN_AFTER for module in network.modules()
        ):
            inputs = self._source.inputs(network, material.learn)
            if inputs is not None:
                network = copy.deepcopy(network)
                standardize(network, inputs)
                backbone = backbone_digest(network)
        power, projection = feeding(attempt.recipe, network.spec.input)
        if (power, projection) != (network.spec.power, network.spec.projection):
            network = fed_through(network, power, projection)
        return Seer(network, backbone)

    def _publish(
        self,
        attempt: Attempt,
        sight: Sight,
        live: Seer,
        candidate: Seer,
        taught: Taught,
        material: Material,
        track: Track,
        serves: str,
    ) -> Version:
        with attempt.timed("judge"):
            judged, sample_ids = examined(attempt, sight, material, live, candidate)
            spec = candidate.network.spec
            judgement = decide(attempt, material, judged, live.network.spec, spec, evidence(taught), fast=True)
            promoted = judgement.decision is Decision.PROMOTED
            tests = sight.answers(candidate, material.tests)
        delta = attempt.loader.delta(candidate.network, attempt.claim.parent)
        state = taught.tensors() if promoted and taught.unsaved >= SAVE_AFTER else None
        weights, left = attempt.write(delta.tensors, state)
        if left is not None:
            taught.unsaved = 0
        return attempt.commit(
            Outcome(
                version_id=attempt.version_id,
                spec=spec,
                verdict=Verdict(judgement.decision.value),
                reason=judgement.reason,
                metrics={
                    **figures(judged, sample_ids, spec.labels, datetime.now(UTC)),
                    "test": test_figures(material.tests, tests),
                    "prequential": track.to_json(),
                    "anchor": anchor_after(attempt, judged, promoted),
                    "gate": judgement.metrics,
                    "learning": None,
                    "head": {
                        "serves": serves,
                        "samples": taught.sums.samples,
                        "refined_at": taught.refined_at,
                        "learned_by": "closed form",
                    },
                    "choice": taught.choice and taught.choice.to_json(),
                    "delta": True,
                    **attempt.about(material),
                },
                weights=weights,
                learner_state=left,
                base_id=delta.base_id,
                held_out=material.on(Side.HOLDOUT),
                tests=material.on(Side.TEST),
                too_early=too_early(judgement.metrics["n"], max(material.learned_before, len(material.learn))),
            )
        )

    def _unchanged(self, attempt: Attempt, live: Seer, material: Material, taught: Taught) -> Version:
        """Live once more: withdrawals and repeats are facts that need no other head; labels held out wait for one."""
        delta = attempt.loader.delta(live.network, attempt.claim.parent)
        weights, _ = attempt.write(delta.tensors, None)
        version = attempt.commit(unchanged(attempt, live.network.spec, material, weights, base_id=delta.base_id))
        promoted = version.verdict == Verdict.PROMOTED
        self._sums.keep(attempt.claim.model, taught, version.id if promoted else attempt.claim.parent.id)
        return version


def _edits(attempt: Attempt, material: Material, there: frozenset[str]) -> dict[str, Place | None]:
    """What the claim asks of the tally: the learned side of it in, all else out."""
    learned = material.on(Side.LEARN)
    fresh = {one.content_digest for one in material.learn}
    edits: dict[str, Place | None] = {}
    for one in attempt.claim.revisions:
        gone = one.content_digest in fresh and one.content_digest not in there  # withdrawn since it was claimed
        taken = one.action != RevisionAction.REMOVE and one.id in learned and not gone
        edits[one.sample_id] = (one.content_digest, one.label_id) if taken else None
    return edits


def _tracked(
    sight: Sight, live: Seer, bench: Seer, material: Material, rivals: Sequence[Solved], parent: Version
) -> Track:
    """Count how live, and each head that might have served, answer what they are about to learn."""
    contents = [*material.learn, *material.held]
    answers = sight.answers(live, contents)
    known = [one for one in contents if one.content_digest in answers]
    of_rivals = []
    for solved in rivals:
        rival = Seer(with_head(bench.network, bench.network.spec.labels, solved), bench.backbone)
        given = sight.answers(rival, contents)
        of_rivals.append([given.get(one.content_digest) for one in known])
    return Track.from_metrics(parent.metrics).seen(
        [one.label_id for one in known], [answers[one.content_digest] for one in known], of_rivals
    )
