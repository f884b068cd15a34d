"""The live versions of a family, asked at once: what they have in common is computed once.

Made for one request, called by the Batcher as a Predictor is. Knows nothing of HTTP or of who belongs to a family.
"""

from collections.abc import Hashable, Sequence

from torch import Tensor

from app.errors import InvalidItem
from app.serving.predictor import Answer, Predictor


def family_queue(family: str) -> str:
    """Name the queue of requests to a family: no model's name holds a space."""
    return f"family {family}"


class FamilyPredictor:
    """One answer of each member to each input. Safe to call from several threads, as its members are."""

    def __init__(self, family: str, members: Sequence[Predictor]) -> None:
        """At least one member; all take the same input."""
        self.members = tuple(members)
        self.name = family_queue(family)
        self.key: Hashable = tuple(member.key for member in members)
        self.cheap = all(member.cheap for member in members)

    def decode_many(self, contents: Sequence[bytes]) -> list[Tensor | InvalidItem]:
        """Decode each payload; in the place of one that cannot be used stands what is wrong with it."""
        return self.members[0].decode_many(contents)

    def predict(self, items: Sequence[Tensor], top_k: int = 5) -> list[tuple[Answer, ...]]:
        """Answer decoded items in their order, each with the members' answers in theirs.

        Each backbone runs once, however many heads are on it. As a rule there is one; a member that was rolled back
        by itself stands on another.
        """
        if not items:
            return []
        made: dict[int, Tensor] = {}
        columns = []
        for member in self.members:
            if member.labels and id(member.backbone) not in made:
                made[id(member.backbone)] = member.features(items)
            columns.append(member.answers(made.get(id(member.backbone)), len(items), top_k))
        return list(zip(*columns, strict=True))

    def trimmed(self, answer: tuple[Answer, ...], top_k: int) -> tuple[Answer, ...]:
        """Give each member's answer with fewer of the most believed labels."""
        return tuple(member.trimmed(one, top_k) for member, one in zip(self.members, answer, strict=True))

    def note(self, items: Sequence[Tensor]) -> None:
        """Remember the batch for each member's next version."""
        for member in self.members:
            member.note(items)
