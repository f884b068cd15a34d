"""Recipes with names, for people who do not tune: what differs from the defaults of `app.recipe`, and what for.

When to choose which: docs/learning.md.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

NAMED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Pretrained weights stay as they are; the head is solved anew with every label.
        "frozen-backbone": {
            "head": {"kind": "slda", "power": 0.7, "refinement": 2},
            "trainable": "head",
            "penalties": [],
        },
        # Everything is learned by gradient steps, old samples rehearsed beside the new ones.
        "from-scratch": {},
        # What was right last month may be wrong today: a second head forgets, the last block follows now and then.
        "drift": {
            "head": {"kind": "slda", "forgetting": 0.99},
            "trainable": "last_blocks",
            "optimizer": {"kind": "sgd", "lr": 0.003},
            "schedule": {"samples": 1000},
        },
        # The head is solved with every label, and pretrained layers follow slowly, held by their old weights.
        "fine-tune": {
            "head": {"kind": "slda", "power": 0.7, "refinement": 2},
            "trainable": "last_blocks",
            "blocks": 2,
            "penalties": [{"kind": "l2_sp", "anchor": "previous", "strength": 0.01}],
            "optimizer": {"kind": "sgd", "lr": 0.01, "backbone_lr": 0.003},
            "memory": {"kind": "class_balanced", "capacity": 10_000},
            "schedule": {"samples": 1000},
        },
    }
)

ABOUT: Mapping[str, str] = MappingProxyType(
    {
        "frozen-backbone": "Pretrained weights stay as they are and the head is solved anew with every label: exact, "
        "live within a second or two, and nothing is forgotten.",
        "from-scratch": "Every weight learns by gradient steps while old samples are rehearsed: for networks without "
        "pretrained weights.",
        "drift": "For a world that changes: of two heads, one of which forgets, the better one serves, and the last "
        "block follows slowly.",
        "fine-tune": "Every label is in the head at once, and the last blocks of a pretrained network follow slowly, "
        "held by what they knew: for pictures unlike those it was pretrained on.",
    }
)

DEFAULT = "from-scratch"
DEFAULT_PRETRAINED = "frozen-backbone"


def laid_over(named: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Lay what was given over the named recipe, part by part; a part of another kind takes nothing from the old one."""
    merged = dict(named)
    for name, value in given.items():
        before = merged.get(name)
        merged[name] = value
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            kind = before.get("kind")
            if value.get("kind", kind) == kind:
                merged[name] = laid_over(before, value)
    return merged
