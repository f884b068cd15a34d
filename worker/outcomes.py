"""What an update commits when nothing new was made of its claim, and which version becomes the line's anchor.

Called by every way to learn.
"""

from collections.abc import Sequence

from app.networks.spec import NetworkSpec
from app.storage.claims import Outcome
from app.storage.states import Verdict
from app.storage.weights import WeightFile
from worker.attempt import Attempt
from worker.gate import Judged
from worker.holdout import Side
from worker.judging import best_of_the_line
from worker.material import Material


def anchor_after(attempt: Attempt, judged: Sequence[Judged], promoted: bool) -> str:
    """The version of the line that is best on today's held-out samples; the candidate is of the line once promoted."""
    candidate = attempt.version_id if promoted else None
    return best_of_the_line(judged, attempt.anchor_id, attempt.claim.parent.id, candidate)


def unchanged(
    attempt: Attempt,
    spec: NetworkSpec,
    material: Material,
    weights: WeightFile,
    *,
    base_id: str | None = None,
    learner_state: WeightFile | None = None,
    why: str = "nothing to learn and nothing to rehearse",
) -> Outcome:
    """The parent once more: a version whose ledger says what became of the claim, with the weights it had.

    Withdrawals and repeats are facts; they need no better network to become true. Labels newly held out do: they
    are believed only with a candidate that the gate promoted, so they join the next claim.
    """
    before = attempt.claim.parent.metrics
    kept = ("accuracy", "per_class", "per_class_before", "per_slice", "test", "prequential", "choice", "head")
    return Outcome(
        version_id=attempt.version_id,
        spec=spec,
        verdict=Verdict.INCONCLUSIVE if material.held else Verdict.PROMOTED,
        reason=f"only held-out samples: {why}" if material.held else f"weights unchanged: {why}",
        metrics={
            **{name: before.get(name) for name in kept},
            "anchor": attempt.anchor_id,
            "gate": None,
            "learning": None,
            "delta": base_id is not None,
            **attempt.about(material),
        },
        weights=weights,
        learner_state=learner_state,
        base_id=base_id,
        held_out=material.on(Side.HOLDOUT),
        tests=material.on(Side.TEST),
        too_early=bool(material.held),
    )
