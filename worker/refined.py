"""A candidate of the slow lane: shared layers that moved, a head solved anew on them, and what the gate says of both.

Called by the slow lane for one model and by the family's for each of several, while the fast lane is held. Decides
nothing about publishing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from torch import Tensor

from app.storage.claims import Outcome
from app.storage.registry import Live
from app.storage.states import Verdict
from app.storage.tables import Version
from app.storage.weights import WeightFile
from worker.attempt import Attempt
from worker.featuring import FeatureSource
from worker.gate import Decision, Judged, Judgement
from worker.learning.record import LearningRecord
from worker.material import Material, gather
from worker.outcomes import anchor_after
from worker.refit import with_head
from worker.report import figures, test_figures
from worker.sight import Seer, Sight, examined
from worker.sums_of_the_line import SumsOfTheLine
from worker.taught import Taught
from worker.track import Track
from worker.verdict import decide, evidence


@dataclass(frozen=True)
class Refined:
    """What would be published, and all that its row will say."""

    attempt: Attempt
    before: Live
    live: Seer
    candidate: Seer
    taught: Taught
    material: Material
    judged: list[Judged]
    sample_ids: list[str]
    tests: Mapping[str, int | None]
    judgement: Judgement

    @property
    def promoted(self) -> bool:
        return self.judgement.decision is Decision.PROMOTED

    def state(self) -> dict[str, Tensor]:
        """The head's sums, for the learner state that is saved with the version."""
        self.taught.unsaved = 0
        return self.taught.tensors()

    def outcome(
        self,
        record: LearningRecord,
        rehearsed: int,
        files: tuple[WeightFile, WeightFile | None],
        *,
        base_id: str | None = None,
    ) -> Outcome:
        """What is committed."""
        weights, left = files
        spec, attempt = self.candidate.network.spec, self.attempt
        return Outcome(
            version_id=attempt.version_id,
            spec=spec,
            verdict=Verdict(self.judgement.decision.value),
            reason=self.judgement.reason,
            metrics={
                **figures(self.judged, self.sample_ids, spec.labels, datetime.now(UTC)),
                "test": test_figures(self.material.tests, self.tests),
                "prequential": Track.from_metrics(self.before.version.metrics).to_json(),
                "anchor": anchor_after(attempt, self.judged, self.promoted),
                "gate": self.judgement.metrics,
                "learning": record.to_json(),
                "head": {
                    "samples": self.taught.sums.samples,
                    "refined_at": self.taught.refined_at,
                    "rehearsed": rehearsed,
                },
                "choice": self.taught.choice and self.taught.choice.to_json(),
                "delta": base_id is not None,
                **attempt.about(self.material),
            },
            weights=weights,
            learner_state=left,
            base_id=base_id,
        )

    def settle(self, version: Version, sums: SumsOfTheLine) -> None:
        """Keep what the next update goes on from, and let go of features that nobody will ask for."""
        model = self.attempt.claim.model
        if self.promoted:
            sums.keep(model, self.taught, version.id)
        backbones = {self.live.backbone, *([self.candidate.backbone] if self.promoted else [])}
        self.attempt.stores.features.keep_only(model.id, backbones)


def refined(attempt: Attempt, source: FeatureSource, sums: SumsOfTheLine, seer: Seer) -> Refined:
    """Solve the head on the seer's moved layers by all that the line holds now, and have it judged.

    It is judged against what is live now; from here on the update is one on top of that.
    """
    model = attempt.claim.model
    before = attempt.stores.registry.live(model.id)
    attempt.onto(before.version, before.epoch)
    network = attempt.loader.load(before.version)
    live = Seer(network, attempt.loader.backbone_of(before.version)[1])
    sight = Sight(source, model, lambda: None)  # nothing may come in between from here on
    with attempt.timed("judge"):
        material = gather(attempt.claim, attempt.recipe, attempt.stores.line)
        taught = _taught(attempt, sums, sight, seer)
        solved = sums.heads(attempt, taught, network.spec.labels, sight, seer)[0]
        candidate = Seer(with_head(seer.network, network.spec.labels, solved), seer.backbone)
        judged, sample_ids = examined(attempt, sight, material, live, candidate)
        judgement = decide(attempt, material, judged, network.spec, candidate.network.spec, evidence(taught))
        tests = sight.answers(candidate, material.tests)
    return Refined(attempt, before, live, candidate, taught, material, judged, sample_ids, tests, judgement)


def _taught(attempt: Attempt, sums: SumsOfTheLine, sight: Sight, seer: Seer) -> Taught:
    """The sums of all that the line holds now, of the features that the moved backbone makes."""
    forgetting = getattr(attempt.recipe.head, "forgetting", 1.0)
    taught = Taught.nothing("", seer.network.head_width, seer.made_by, forgetting)
    sums.follow_line(attempt, taught, sight, seer)
    sums.chosen(attempt, taught, sight, seer)
    return taught
