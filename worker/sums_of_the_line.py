"""The sums of each model's live version: at hand from update to update, else from what was saved, else rebuilt.

Used by both lanes of closed-form heads. What the line's samples say is the truth; saved sums only spare the way there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from app.log import get_logger
from app.storage.tables import Model, Version
from worker.attempt import Attempt
from worker.learning.closed_form import Solved
from worker.learning.refinement import MOST
from worker.learning.strength import ROWS, Choice
from worker.sight import Seer, Sight
from worker.tally import Place
from worker.taught import Taught, beside

log = get_logger(__name__)

SUMS_BYTES = 1 << 30

YOUNG = 200
"""Samples up to which strength and scale are chosen anew often: they still move, and a choice costs several solves."""

OFTEN = 8
"""A young model chooses again when one in so many samples has come or gone since it last did."""


@dataclass(frozen=True)
class Named:
    """A sample of which only the names are known here."""

    sample_id: str
    content_digest: str


class SumsOfTheLine:
    """Gives a version's sums; those of the models learned last stay at hand, up to `limit` bytes."""

    def __init__(self, limit: int = SUMS_BYTES) -> None:
        self._limit = limit
        self._of_model: dict[int, Taught] = {}  # the one used last comes last

    def of(self, attempt: Attempt, version: Version, sight: Sight, seer: Seer) -> Taught:
        """Give the sums of the live `version` from features as the seer makes them.

        They are the caller's until given back by `keep`: what fails in between leaves none behind, to be rebuilt.
        """
        recipe = attempt.recipe
        forgetting = getattr(recipe.head, "forgetting", 1.0)
        taught = self._of_model.pop(attempt.claim.model.id, None)
        if taught is None or taught.made_by != seer.made_by or taught.forgetting != forgetting:
            taught = self._saved(attempt, version, seer, forgetting)
        if taught.version_id != version.id:
            self.follow_line(attempt, taught, sight, seer)
            taught.version_id = version.id
        if taught.choice is None and version.metrics.get("choice"):
            taught.choice = Choice.from_json(version.metrics["choice"])
        return taught

    def keep(self, model: Model, taught: Taught, version_id: str) -> None:
        """Take the sums back, as those of this version."""
        taught.version_id = version_id
        self._of_model.pop(model.id, None)
        self._of_model[model.id] = taught
        while len(self._of_model) > 1 and sum(one.nbytes for one in self._of_model.values()) > self._limit:
            del self._of_model[next(iter(self._of_model))]

    def follow_line(self, attempt: Attempt, taught: Taught, sight: Sight, seer: Seer) -> None:
        """Make the sums those of what the line holds now."""
        line = attempt.stores.line.learned(attempt.claim.model)
        wanted = {one.sample_id: (one.content_digest, one.label_id) for one in line}
        self.edited(attempt, taught, taught.tally.difference(wanted), sight, seer)

    def edited(
        self, attempt: Attempt, taught: Taught, edits: Mapping[str, Place | None], sight: Sight, seer: Seer
    ) -> tuple[bool, dict[str, Place | None]]:
        """Put samples in, move them or take them out; tell whether the sums changed, and give the edits that undo it.

        Where something is to go whose features nobody can make again, the sums are rebuilt from all that stays. What
        is to come and has no features any more, because its input was erased meanwhile, stays out.
        """
        changes, undo = taught.tally.edit(edits)
        if not changes:
            return False, undo
        before = {place[0]: sample_id for sample_id, place in undo.items() if place is not None}
        named = [
            Named(
                taught.tally.sample_of(change.content_digest)
                if change.after is not None
                else before[change.content_digest],
                change.content_digest,
            )
            for change in changes
        ]
        fed = sight.fed(seer, named)
        lost = [change for change in changes if change.content_digest not in fed]
        taught.tally.drop(change.content_digest for change in lost)
        if any(change.before is not None for change in lost):
            log.info("sums rebuilt", model=attempt.claim.model.name, gone=len(lost))
            self._rebuild(taught, sight, seer)
        else:
            taught.follow([change for change in changes if change.content_digest in fed], fed)
        return True, undo

    def chosen(self, attempt: Attempt, taught: Taught, sight: Sight, seer: Seer) -> None:
        """Choose strength and scale when it is time to; by samples whose digests are the smallest, so at random."""
        choice, samples = taught.choice, taught.sums.samples
        if choice is not None and not choice.due(taught.sums):
            little = OFTEN * abs(samples - choice.samples) < choice.samples
            if little or samples >= YOUNG:
                return
        contents = taught.tally.contents()
        some = sorted(contents)[:ROWS]
        fed = sight.fed(seer, [Named(taught.tally.sample_of(digest), digest) for digest in some])
        if fed:
            taught.choose(attempt.recipe, fed, [contents[digest] for digest in fed])

    def heads(
        self, attempt: Attempt, taught: Taught, label_ids: Sequence[int], sight: Sight, seer: Seer
    ) -> list[Solved]:
        """Solve the heads as the recipe wants them; where steps are due, by what the line's samples look like."""
        if not taught.looks_at_samples(attempt.recipe):
            return taught.heads(attempt.recipe, label_ids)
        some = sorted(taught.tally.contents())[:MOST]
        fed = sight.fed(seer, [Named(taught.tally.sample_of(digest), digest) for digest in some])
        return taught.heads(attempt.recipe, label_ids, fed)

    def _saved(self, attempt: Attempt, version: Version, seer: Seer, forgetting: float) -> Taught:
        """The newest saved sums of the line from the same features; empty ones without any."""
        near, state = attempt.left_behind(version)
        taught = Taught.from_tensors(near, state)
        if taught is not None and taught.made_by == seer.made_by and taught.forgetting == forgetting:
            return taught
        return replace(Taught.nothing("", seer.network.head_width, seer.made_by, forgetting), beside=beside(state))

    def _rebuild(self, taught: Taught, sight: Sight, seer: Seer) -> None:
        contents = taught.tally.contents()
        fed = sight.fed(seer, [Named(taught.tally.sample_of(digest), digest) for digest in contents])
        taught.tally.drop(contents.keys() - fed.keys())
        taught.begin_again({digest: label for digest, label in contents.items() if digest in fed}, fed)
