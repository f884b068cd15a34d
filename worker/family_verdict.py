"""What a family makes of its members' judgements: all are promoted, or none.

Called by the family's slow lane. The gate has judged each member against its own live version.
"""

from collections.abc import Sequence
from dataclasses import replace

from worker.gate import Decision, Judgement
from worker.learning.strength import Choice
from worker.refined import Refined


def verdicts(found: Sequence[Refined]) -> list[Refined]:
    """Give each its final judgement. One that refuses holds back those that agree; one of which nothing is held out has
    no say, unless its head answers samples left out worse than before by more than its gate's margin."""
    silent = [_is_silent(one) for one in found]
    refusing = [one for one, has_no_say in zip(found, silent, strict=True) if not one.promoted and not has_no_say]
    if not refusing and not all(silent):
        led = next(one for one, has_no_say in zip(found, silent, strict=True) if not has_no_say)
        follows = f"nothing of it is held out (n=0); it follows {_name(led)}: {led.judgement.reason}"
        return [
            _judged(one, Decision.PROMOTED, follows) if has_no_say else one
            for one, has_no_say in zip(found, silent, strict=True)
        ]
    if not refusing:
        return list(found)
    who = "; ".join(f"{_name(one)} {one.judgement.decision.value}, {_why(one)}" for one in refusing)
    back = f"held back with its family, of which each must agree: {who}"
    return [
        _judged(one, one.judgement.decision, _why(one))
        if any(one is other for other in refusing)
        else _judged(one, Decision.INCONCLUSIVE, back)
        for one in found
    ]


def _is_silent(one: Refined) -> bool:
    return not one.promoted and one.judgement.metrics["n"] == 0 and _left_out(one) is None


def _why(one: Refined) -> str:
    return (one.judgement.metrics["n"] == 0 and _left_out(one)) or one.judgement.reason


def _left_out(one: Refined) -> str | None:
    """How much worse the head answers learned samples that were left out while solving it; None if it does not."""
    before, after = one.before.version.metrics.get("choice"), one.taught.choice
    old = Choice.from_json(before).accuracy if before else None
    new = after.accuracy if after is not None else None
    if old is None or new is None or new >= old - one.attempt.recipe.gate.margin:
        return None
    return f"nothing of it is held out (n=0), and on learned samples left out accuracy {old:.1%} → {new:.1%}"


def _name(one: Refined) -> str:
    return repr(one.attempt.claim.model.name)


def _judged(one: Refined, decision: Decision, reason: str) -> Refined:
    return replace(one, judgement=Judgement(decision, reason, one.judgement.metrics))
