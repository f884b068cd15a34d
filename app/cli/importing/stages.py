"""How a set is divided into stages: a small part with as many of each class, then growing shares of the rest.

Which samples a stage takes depends on what was posted before it and on the seed alone, so an import that was
interrupted goes on with the stage it was in.
"""

import random
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from app.cli.importing.survey import Item


@dataclass(frozen=True)
class Stage:
    """Up to `target` samples of each class will have been posted once it is over."""

    number: int  # from 1
    target: int
    last: bool


@dataclass(frozen=True)
class Plan:
    """The stages of a set whose largest class has `largest` samples."""

    stages: tuple[Stage, ...]

    @classmethod
    def of(cls, per_class: Mapping[str, int], first: int = 10, growth: int = 4) -> "Plan":
        """Begin with `first` of each class, and go on `growth` times as far each time."""
        largest = max(per_class.values(), default=0)
        targets = []
        target = first
        while target < largest:
            targets.append(target)
            target *= growth
        targets.append(largest)
        return cls(tuple(Stage(place + 1, target, place + 1 == len(targets)) for place, target in enumerate(targets)))

    def sizes(self, per_class: Mapping[str, int]) -> list[int]:
        """How many samples each stage posts."""
        totals = [sum(min(count, stage.target) for count in per_class.values()) for stage in self.stages]
        return [total - before for total, before in zip(totals, [0, *totals], strict=False)]


class Pool:
    """What is left to post, by class, in an order that the seed shuffles."""

    def __init__(self, items: Sequence[Item], posted: Collection[str], seed: int) -> None:
        self._left: dict[str, list[Item]] = defaultdict(list)
        self._posted: dict[str, int] = defaultdict(int)
        for item in items:
            if item.client_id in posted:
                self._posted[item.label] += 1
            else:
                self._left[item.label].append(item)
        for label in sorted(self._left):
            random.Random(f"{seed} {label}").shuffle(self._left[label])  # noqa: S311  an order is no secret

    def __len__(self) -> int:
        return sum(len(left) for left in self._left.values())

    def wanted(self, stage: Stage) -> dict[str, int]:
        """How many of each class the stage still has to take; empty when it is complete."""
        wanted = {
            label: min(stage.target - self._posted[label], len(left)) for label, left in sorted(self._left.items())
        }
        return {label: count for label, count in wanted.items() if count > 0}

    def candidates(self, wanted: Mapping[str, int], times: int, limit: int) -> list[Item]:
        """Give up to `times` as many of each class as are wanted, `limit` in all, the same share of each class."""
        share = min(1.0, limit / max(1, times * sum(wanted.values())))
        chosen = []
        for label, count in wanted.items():
            chosen += self._left[label][: max(1, round(times * count * share))]
        return chosen[:limit]

    def take(self, wanted: Mapping[str, int], first: Sequence[Item] = ()) -> list[Item]:
        """Take what is wanted out of the pool, of each class those in `first` before others; classes take turns."""
        order = {item.client_id: place for place, item in enumerate(first)}
        taken: list[list[Item]] = []
        for label, count in wanted.items():
            left = sorted(self._left[label], key=lambda item: order.get(item.client_id, len(order)))
            ids = {item.client_id for item in left[:count]}
            taken.append(left[:count])
            self._left[label] = [item for item in self._left[label] if item.client_id not in ids]
            self._posted[label] += count
        return in_turns(taken)


def in_turns(rows: Sequence[Sequence[Item]]) -> list[Item]:
    """Merge rows so that each is spread evenly over the whole: any beginning has its share of each."""
    placed = [
        ((place + 0.5) / len(row), number, place, item)
        for number, row in enumerate(rows)
        for place, item in enumerate(row)
    ]
    return [item for *_, item in sorted(placed, key=lambda one: one[:3])]
