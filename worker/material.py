"""What one update works with: which of the claim is learned, which held out, what is rehearsed, what judges.

Called by the worker's update. Reads the line; trains nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.recipe import Recipe
from app.storage.claims import Claim, ClaimedRevision
from app.storage.line import MEMORIES, LineReader, Stored
from app.storage.states import Lane, RevisionAction
from worker.holdout import Side, split


@dataclass(frozen=True)
class Material:
    """Contents are distinct within `learn`, `memory`, `tests`, and within `held` with `settled` together."""

    learn: tuple[ClaimedRevision | Stored, ...]  # to be trained on
    held: tuple[ClaimedRevision, ...]  # held out with this claim, provisionally
    memory: tuple[Stored, ...]  # learned before, to be rehearsed
    settled: tuple[Stored, ...]  # held out before
    tests: tuple[Stored, ...]  # neither taught nor judging, only reported on
    sides: Mapping[int, Side]  # of every revision of the claim that is no removal, repeats included
    removed: int
    repeated: int  # revisions whose content and label the line or the claim has already
    learned_before: int  # samples the line has learned

    def on(self, side: Side) -> frozenset[int]:
        """Ids of the claim's revisions on that side."""
        return frozenset(revision_id for revision_id, fell in self.sides.items() if fell is side)

    def new_labels(self, known: tuple[int, ...]) -> tuple[int, ...]:
        """Label ids that are to be learned or rehearsed and have no row yet, in the order of their arrival."""
        arriving = [*(one.label_id for one in self.learn), *(one.label_id for one in self.memory)]
        return tuple(dict.fromkeys(label for label in arriving if label not in known))


def gather(claim: Claim, recipe: Recipe, line: LineReader) -> Material:
    """Split the claim and read the line. A content that comes twice in the claim counts once, with its last label."""
    arriving = [revision for revision in claim.revisions if revision.action != RevisionAction.REMOVE]
    learned = line.learned_counts(claim.model)
    key = claim.model.holdout_key
    sides = split(arriving, key=key, share=recipe.holdout, learned=learned, test=recipe.test)
    by_side = {
        side: _last_of_each(one for one, fell in zip(arriving, sides, strict=True) if fell is side) for side in Side
    }
    learn = tuple(revision for revision in by_side[Side.LEARN] if not revision.known)
    held = tuple(revision for revision in by_side[Side.HOLDOUT] if not revision.known)
    fresh = {revision.content_digest for revision in (*learn, *held)}
    # A closed-form head has learned all it rehearses: what claims for it needs no memory.
    capacity = 0 if claim.lane == Lane.FAST else recipe.memory.capacity
    memory = MEMORIES[recipe.memory.kind](line, claim.model, capacity, fresh) if capacity else []
    return Material(
        learn=learn,
        held=held,
        memory=tuple(memory),
        settled=tuple(stored for stored in line.holdout(claim.model) if stored.content_digest not in fresh),
        tests=tuple(line.test_split(claim.model)),
        sides={one.id: fell for one, fell in zip(arriving, sides, strict=True)},
        removed=len(claim.revisions) - len(arriving),
        repeated=len(arriving) - len(learn) - len(held) - len(by_side[Side.TEST]),
        learned_before=sum(learned.values()),
    )


def _last_of_each(revisions: Iterable[ClaimedRevision]) -> tuple[ClaimedRevision, ...]:
    return tuple({revision.content_digest: revision for revision in revisions}.values())
