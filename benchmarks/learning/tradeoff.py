"""Draws docs/learning-tradeoff.svg: what a label costs, and what is known after classes came one after the other.

With `--measure` the points are measured first: 2,000 photographs (CIFAR-10) in class order through MobileNetV2, each
recipe taught by the product's own worker in this process, its CPU seconds counted. They stand in
results/tradeoff.json. A small SVG of our own, readable on light and on dark pages.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import torch
from mission_data import CIFAR, SHARED, Picture, by_label, cifar, some_of_each
from mission_offline import chosen_decay, features_of, logistic, mobilenet
from mission_school import School, school

from app.log import configure
from app.networks.pretrained import read_weights_file

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "tradeoff.json"
PICTURE = HERE.parents[1] / "docs" / "learning-tradeoff.svg"
LETTER, LINE = 7.0, 17.0  # how wide a letter and how high a line is at most
Box = tuple[float, float, float, float]  # left, top, width, height
TICKS = {
    0.001: "1 ms",
    0.003: "3 ms",
    0.01: "10 ms",
    0.02: "20 ms",
    0.03: "30 ms",
    0.05: "50 ms",
    0.1: "0.1 s",
    0.3: "0.3 s",
    1.0: "1 s",
}
LABELS, TEST, CLAIM = 1500, 600, 64
WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 56, 60

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; } .small { font-size: 12px; fill: #57606a; }
  .axis { stroke: #8c959f; } .grid { stroke: #8c959f; stroke-opacity: .25; }
  .fast { fill: #0969da; } .both { fill: #8250df; } .slow { fill: #bc4c00; }
  .joint { stroke: #57606a; stroke-dasharray: 5 4; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .small { fill: #9da7b3; } .joint { stroke: #9da7b3; }
    .fast { fill: #58a6ff; } .both { fill: #bc8cff; } .slow { fill: #f0883e; }
  }
""".strip("\n")


def drawn(found: dict[str, Any]) -> str:
    """The picture of points with `name`, `seconds` a label, `accuracy` in percent, `speed` and where the name goes."""
    points = found["points"]
    low = math.log10(min(one["seconds"] for one in points)) - 0.15
    high = math.log10(max(one["seconds"] for one in points)) + 0.15
    bottom = math.floor(min(one["accuracy"] for one in points) / 10) * 10
    top = math.ceil((max(*(one["accuracy"] for one in points), found["joint"]) + 1) / 10) * 10

    def x(seconds: float) -> float:
        return LEFT + (math.log10(seconds) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(accuracy: float) -> float:
        return HEIGHT - BOTTOM - (accuracy - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [text(LEFT, 24, found["title"], "title"), text(LEFT, 42, found["subtitle"], "small")]
    for percent in range(bottom, top + 1, 10):
        parts.append(line(LEFT, y(percent), right, y(percent), "grid"))
        parts.append(text(LEFT - 8, y(percent) + 4, f"{percent} %", "small", "end"))
    for seconds, words in TICKS.items():
        if low <= math.log10(seconds) <= high:
            parts.append(line(x(seconds), TOP, x(seconds), floor, "grid"))
            parts.append(text(x(seconds), floor + 18, words, "small", "middle"))
    level = y(found["joint"])
    parts += [
        line(LEFT, floor, right, floor, "axis"),
        line(LEFT, TOP, LEFT, floor, "axis"),
        text((LEFT + right) / 2, HEIGHT - 14, "computing for each label, on one core", "", "middle"),
        line(LEFT, level, right, level, "joint"),
    ]
    taken: list[Box] = [(x(one["seconds"]) - 8, y(one["accuracy"]) - 8, 16.0, 16.0) for one in points]
    words = f"one linear head, all labels at once: {found['joint']:.1f} %"
    corners = [(left, top) for left in (right - LETTER * len(words), LEFT + 6.0) for top in (level + 4, level - 20)]
    left, above = next((at for at in corners if free((*at, LETTER * len(words), LINE), taken)), corners[0])
    parts.append(text(left, above + 13, words, "small"))
    taken += [(left, above, LETTER * len(words), LINE), (LEFT, level - 1, right - LEFT, 2.0)]
    for one in sorted(points, key=lambda one: -one["accuracy"]):
        across, up = x(one["seconds"]), y(one["accuracy"])
        words = f"{one['name']}: {one['accuracy']:.1f} %"
        left, top_of = placed(across, up, LETTER * len(words), taken, (LEFT, TOP, right, floor))
        taken.append((left, top_of, LETTER * len(words), LINE))
        if abs(top_of + LINE / 2 - up) > LINE * 1.5:
            parts.append(line(across, up, across, top_of + (LINE if top_of < up else 0), "axis"))
        parts.append(f'<circle class="{one["speed"]}" cx="{across:.1f}" cy="{up:.1f}" r="6"/>')
        parts.append(text(left, top_of + 13, words))
    body = "\n  ".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(found["title"])}">\n<style>\n{STYLE}\n</style>\n  {body}\n</svg>\n'
    )


def placed(
    across: float, up: float, width: float, taken: Sequence[Box], within: tuple[float, float, float, float]
) -> tuple[float, float]:
    """Where words go beside their point, (left, top), without covering anything: near it if that can be."""
    rows = [0.0, *(sign * step * LINE for step in (1.2, 2.2, 3.2, 4.2, 5.2, 6.2) for sign in (1, -1))]
    for dy in rows:
        for left in (across + 11, across - 11 - width) if dy == 0 else (across - 8, across - width + 8):
            top = up + dy - LINE / 2
            inside = left >= within[0] and left + width <= within[2] and top >= within[1] and top + LINE <= within[3]
            if inside and free((left, top, width, LINE), taken):
                return left, top
    return across + 11, up - LINE / 2


def free(box: Box, taken: Sequence[Box]) -> bool:
    """Whether a box covers none of those taken."""
    left, top, width, height = box
    return all(
        left + width < one[0] or one[0] + one[2] < left or top + height < one[1] or one[1] + one[3] < top
        for one in taken
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


# What forgets is shown as it is: the gate, which would hold it back, is open.
_BY_CLASS = {
    "trigger": {"samples": 1_000_000, "seconds": 86_400},
    "new_classes": {"policy": "accept"},
    "gate": {"margin": 1.0, "alpha": 1e-9},
}
_SLOW = {
    "penalties": [{"kind": "l2_sp", "anchor": "previous", "strength": 0.01}],
    "optimizer": {"kind": "sgd", "lr": 0.01, "backbone_lr": 0.003},
}
RECIPES: dict[str, dict[str, Any]] = {
    "ridge": {"based_on": "frozen-backbone", "head": {"kind": "ridge"}},
    "SLDA": {"based_on": "frozen-backbone", "head": {"kind": "slda", "power": None, "refinement": 0}},
    "projection + ridge": {"based_on": "frozen-backbone", "head": {"kind": "ridge", "projection": 2560}},
    "SGD head, nothing rehearsed": {
        "head": {"kind": "softmax"},
        "trainable": "head",
        "penalties": [],
        "memory": {"capacity": 0},
        "early_stopping": {"passes": 1},
        **_BY_CLASS,
    },
    "fine-tuning with rehearsal": {
        "head": {"kind": "softmax"},
        "trainable": "last_blocks",
        "blocks": 2,
        "rehearsal": {"kind": "er_ace"},
        "memory": {"kind": "class_balanced", "capacity": 500},
        "early_stopping": {"passes": 2},
        **_SLOW,
        **_BY_CLASS,
    },
}
REFINED = {
    "based_on": "fine-tune",
    "schedule": {"samples": None},
    "fusion": {"interpolation": 1.0},
    "early_stopping": {"passes": 2},
    **_SLOW,
}


def measure(folder: Path, only: Sequence[str]) -> list[dict[str, Any]]:
    """Teach each recipe, or those named, class after class; their points."""
    taught = by_label(cifar("train", some_of_each("train", LABELS, 0, folder), folder))
    test = cifar("test", some_of_each("test", TEST, 0, folder), folder)
    weights = folder / "mobilenet_v2_imagenet.pth"
    points: list[dict[str, Any]] = []

    def point(name: str, seconds: float, accuracy: float, speed: str) -> None:
        points.append({"name": name, "seconds": round(seconds / len(taught), 5), "accuracy": accuracy, "speed": speed})
        print(points[-1], file=sys.stderr)

    with school(CLAIM) as teaching:
        digest = teaching.add_weights(read_weights_file(weights))
        for number, (title, recipe) in enumerate(RECIPES.items()):
            if only and title not in only:
                continue
            name = f"m{number}"
            teaching.create(
                name=name,
                input={"kind": "image", "size": 96, "channels": 3},
                network={"architecture": "mobilenet_v2", "weights": digest},
                recipe=recipe,
            )
            seconds = _taught(teaching, name, taught)
            solved = recipe.get("based_on") == "frozen-backbone"
            point(title, seconds, teaching.accuracy(name, test, CIFAR), "fast" if solved else "slow")
            if title == "SLDA":
                teaching.change(name, REFINED)
                spent = time.process_time()
                version = teaching.refine(name)
                seconds += time.process_time() - spent
                print(version.verdict, version.reason, file=sys.stderr)
                words = "and a slow update" if version.verdict == "promoted" else "slow update refused"
                point(f"SLDA, {words}", seconds, teaching.accuracy(name, test, CIFAR), "both")
    return points


def joint(folder: Path) -> float:
    """Percent that a logistic regression on all labels at once answers rightly."""
    taught = cifar("train", some_of_each("train", LABELS, 0, folder), folder)
    test = cifar("test", some_of_each("test", TEST, 0, folder), folder)
    network = mobilenet(folder / "mobilenet_v2_imagenet.pth")
    features, asked = features_of(network, taught), features_of(network, test)
    labels, truth = torch.tensor([one.label for one in taught]), torch.tensor([one.truth for one in test])
    fitted = logistic(features, labels, chosen_decay(features, labels, len(CIFAR)), len(CIFAR))
    return round(100 * float((fitted.answers(asked) == truth).float().mean()), 2)


def refreshed(folder: Path, only: Sequence[str]) -> dict[str, Any]:
    """The findings, measured anew; with `only` the other points stay as they were."""
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if only else {"joint": joint(folder), "points": []}
    points = measure(folder, only)
    names = {one["name"] for one in points}
    return {
        "title": "After ten classes, one after the other",
        "subtitle": f"{LABELS:,} photographs (CIFAR-10) through MobileNetV2, {TEST:,} others asked",
        "joint": found["joint"],
        "points": [*(one for one in found["points"] if one["name"] not in names), *points],
    }


def _taught(teaching: School, name: str, pictures: Sequence[Picture]) -> float:
    """CPU seconds of teaching one class after the other."""
    spent = time.process_time()
    for label in range(len(CIFAR)):
        teaching.teach(name, [one for one in pictures if one.label == label], CIFAR)
    return time.process_time() - spent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure the points anew; else those of the last time")
    parser.add_argument("--data-dir", type=Path, default=SHARED)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="with --measure: these points")
    arguments = parser.parse_args()
    if arguments.measure:
        torch.set_num_threads(1)
        configure("WARNING")
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(refreshed(arguments.data_dir, arguments.only), indent=1) + "\n")
    PICTURE.write_text(drawn(json.loads(RESULTS.read_text())))
    print(f"drawn: {PICTURE}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
