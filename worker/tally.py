"""Which contents the sums of a closed-form head hold, and under which label.

Kept by the fast lane beside the sums. A content that was posted twice counts once, with the label of the newest
sample that holds it; taking one of the two out changes nothing. Knows no tensors.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Place = tuple[str, int]
"""Content digest and label id of a sample."""


@dataclass(frozen=True)
class Change:
    """What the sums must follow: a content that is in under `before` shall be in under `after`; None is not at all."""

    content_digest: str
    before: int | None
    after: int | None


class Tally:
    """The learned samples of one version, by id and by content."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._holders: dict[str, dict[str, int]] = {}  # content digest → sample id → label id

    def __len__(self) -> int:
        """How many contents are in."""
        return len(self._holders)

    def label(self, content_digest: str) -> int | None:
        """The label under which a content is in."""
        holders = self._holders.get(content_digest)
        return holders[max(holders)] if holders else None

    def contents(self) -> dict[str, int]:
        """Every content with its label, in the order in which their newest samples came."""
        ordered = sorted((max(holders), digest) for digest, holders in self._holders.items())
        return {digest: self._holders[digest][newest] for newest, digest in ordered}

    def sample_of(self, content_digest: str) -> str:
        """A sample that holds the content."""
        return max(self._holders[content_digest])

    def places(self) -> dict[str, Place]:
        """Every sample with its content and label."""
        return dict(self._places)

    def edit(self, edits: Mapping[str, Place | None]) -> tuple[list[Change], dict[str, Place | None]]:
        """Put samples in, move them or take them out (None); give what changed, and the edits that undo it."""
        digests = {place[0] for place in edits.values() if place is not None}
        digests |= {self._places[sample_id][0] for sample_id in edits if sample_id in self._places}
        before = {digest: self.label(digest) for digest in digests}
        undo: dict[str, Place | None] = {}
        for sample_id, place in edits.items():
            old = self._places.pop(sample_id, None)
            undo[sample_id] = old
            if old is not None:
                del self._holders[old[0]][sample_id]
                if not self._holders[old[0]]:
                    del self._holders[old[0]]
            if place is not None:
                self._places[sample_id] = place
                self._holders.setdefault(place[0], {})[sample_id] = place[1]
        after = {digest: self.label(digest) for digest in digests}
        return [
            Change(digest, before[digest], after[digest])
            for digest in sorted(digests)
            if before[digest] != after[digest]
        ], undo

    def drop(self, contents: Iterable[str]) -> None:
        """Take contents out, whoever holds them."""
        for digest in contents:
            for sample_id in self._holders.pop(digest, {}):
                del self._places[sample_id]

    def difference(self, wanted: Mapping[str, Place]) -> dict[str, Place | None]:
        """The edits that turn this tally into one of exactly the `wanted` samples."""
        edits: dict[str, Place | None] = {
            sample_id: place for sample_id, place in wanted.items() if self._places.get(sample_id) != place
        }
        edits.update({sample_id: None for sample_id in self._places if sample_id not in wanted})
        return edits

    @classmethod
    def of(cls, samples: Iterable[tuple[str, Place]]) -> "Tally":
        tally = cls()
        tally.edit(dict(samples))
        return tally
