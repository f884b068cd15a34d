"""The matrix of a model as tables on the terminal: how each version did on each class and in each span of time.

Classes and spans are the rows and versions the columns, oldest first, so that a row read from left to right tells how
a class fared. Knows the answer of `GET …/versions/matrix` and nothing else; means nothing by colour.
"""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from app.cli.printing import percent, say, table

NAME_WIDTH = 28  # kept for the first column
CELL_WIDTH = 9

Cell = dict[str, Any] | None

FIGURES = {
    "accuracy": "accuracy now, mean of the classes",
    "average_incremental_accuracy": "mean over the versions",
    "backward_transfer": "now less at first",
    "forward_transfer": "known before it was taught: the version before a class came, less chance",
    "forgetting": "forgotten: the best ever less now",
    "worst_case": "worst case: the lowest each class fell to",
}


def show(answer: dict[str, Any], width: int | None = None) -> None:
    """Print the matrix; of the versions the newest that fit `width` characters, the terminal's when left out."""
    fitting = max(1, ((width or Console().width) - NAME_WIDTH) // CELL_WIDTH)
    versions = list(reversed(answer["versions"][:fitting]))
    heads = [f"{'*' if version['live'] else ''}v{version['version']}" for version in versions]
    tests: list[Cell] = [version["test"] for version in versions]
    whole = [("all", None, *(percent(version["accuracy"]) for version in versions)), _row("test split", tests)]
    table(["held-out samples of", "n", *heads], [*_rows(answer["classes"], versions, "by_class"), *whole])
    if answer["slices"]:
        table([f"by {answer['slice']} (UTC)", "n", *heads], _rows(answer["slices"], versions, "by_slice"))
    summary = answer["summary"]
    if summary["versions"]:
        say(f"Of the {summary['versions']} versions of the line that were measured:")
        for field, words in FIGURES.items():
            say(f"  {words}: {_points(summary[field]) if 'less' in words else percent(summary[field])}")
    left = len(answer["versions"]) - len(versions)
    if left:
        say(f"{left} earlier versions did not fit; a wider terminal shows more.", quiet=True)
    say("* is live. Cells are shares answered right; n is of the newest version that was measured.", quiet=True)


def _rows(names: Sequence[str], versions: Sequence[dict[str, Any]], cells: str) -> list[tuple[Any, ...]]:
    return [_row(name, [version[cells][place] for version in versions]) for place, name in enumerate(names)]


def _row(name: str, cells: Sequence[Cell]) -> tuple[Any, ...]:
    newest = next((cell["n"] for cell in reversed(cells) if cell), None)
    return (name, newest, *(percent(cell["accuracy"] if cell else None) for cell in cells))


def _points(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.1f} points".replace("-", "−")
