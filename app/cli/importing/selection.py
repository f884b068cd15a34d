"""Which of a stage's candidates come first: those the model is wrong or unsure about, mixed with random ones.

Pure: it sees the answers, not the server.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.cli.importing.survey import Item


@dataclass(frozen=True)
class Answer:
    """What the model says of an input: labels with their scores, the highest first."""

    top: tuple[tuple[str, float], ...]

    def margin(self, truth: str) -> float:
        """How far the true label is ahead of the best other one, −1 to 1: negative when the answer is wrong."""
        scores = dict(self.top)
        others = [score for label, score in self.top if label != truth]
        return scores.get(truth, 0.0) - max(others, default=0.0)


def informative_first(
    candidates: Sequence[Item], answers: Mapping[str, Answer], wanted: Mapping[str, int], seed: int
) -> list[Item]:
    """Order candidates so that of each class's wanted ones half are the smallest margins and half are random.

    Only the hardest would be no picture of the class, and wrong labels are among the hardest (Northcutt et al. 2021,
    arXiv 1911.00068), so both halves take turns. Candidates without an answer count as random.
    """
    by_class: dict[str, list[Item]] = {}
    for item in candidates:
        by_class.setdefault(item.label, []).append(item)
    ordered: list[Item] = []
    for label, items in sorted(by_class.items()):
        asked = [item for item in items if item.client_id in answers]
        hardest = sorted(asked, key=lambda item: answers[item.client_id].margin(item.label))
        hardest = hardest[: (wanted.get(label, 0) + 1) // 2]
        chosen = {item.client_id for item in hardest}
        others = [item for item in items if item.client_id not in chosen]
        random.Random(f"{seed} {label}").shuffle(others)  # noqa: S311  an order is no secret
        ordered += _alternately(hardest, others)
    return ordered


def _alternately(hard: Sequence[Item], others: Sequence[Item]) -> list[Item]:
    turns: list[Item] = []
    for place in range(max(len(hard), len(others))):
        turns += [*hard[place : place + 1], *others[place : place + 1]]
    return turns
