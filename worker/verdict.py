"""How the gate is asked about a candidate: what it must know, gathered from the claim, the material and the answers.

Called by every way to learn. The rules are the gate's.
"""

from collections.abc import Sequence
from dataclasses import replace

from app.networks.spec import NetworkSpec
from worker.attempt import Attempt
from worker.gate import Decision, FoldEvidence, Judged, Judgement, Question, judge
from worker.material import Material
from worker.taught import Taught

FAST_ALPHA = 0.001
"""Error level for versions that come every second: at the usual one the test would err many times a day."""


def decide(
    attempt: Attempt,
    material: Material,
    judged: Sequence[Judged],
    live: NetworkSpec,
    candidate: NetworkSpec,
    fold: FoldEvidence | None,
    *,
    fast: bool = False,
) -> Judgement:
    """Ask the gate.

    A solved head without what was withdrawn, or under labels that it held already, is as good as its samples are:
    no verdict keeps it from being published, since the sums of a withdrawn sample must not be served on.
    """
    gate = attempt.recipe.gate
    labels = attempt.stores.registry.labels(attempt.claim.model.id)
    anchor = attempt.stores.registry.version_by_id(attempt.anchor_id)
    judgement = judge(
        Question(
            judged=judged,
            live_labels=frozenset(live.labels),
            candidate_labels=frozenset(candidate.labels),
            anchor_labels=frozenset(NetworkSpec.from_json(anchor.spec).labels),
            margin=gate.margin,
            alpha=min(gate.alpha, FAST_ALPHA) if fast else gate.alpha,
            untrained=material.learned_before == 0,
            unproven=not material.settled,
            fold=fold,
            solved=fast,
            names={label.id: label.name for label in labels},
        )
    )
    if fast:  # such versions come every second, and models may have thousands of classes
        moved = {label: seen for label, seen in judgement.metrics["classes"].items() if seen["b"] or seen["c"]}
        judgement = replace(judgement, metrics={**judgement.metrics, "classes": moved})
    if fast and not material.learn and not material.held:
        return replace(judgement, decision=Decision.PROMOTED, reason=f"without what was withdrawn: {judgement.reason}")
    return judgement


def evidence(taught: Taught) -> FoldEvidence | None:
    """What stands in for the early-stopping fold: samples answered by a head that had left them out."""
    choice = taught.choice
    if choice is None or choice.accuracy is None:
        return None
    counts = taught.sums.counts.values()
    return FoldEvidence(choice.rows, choice.accuracy, max(counts) / sum(counts))
