"""How commands show things: plain lines and tables on stdout."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*Z$")  # as JSON has it
WHOLE = ("prediction", "sample", "made")  # columns that are copied or read at a glance, so never broken


def say(line: str, *, quiet: bool = False) -> None:
    """Print a line as it stands, never wrapped; quiet ones go to stderr, so that a script reads only the answer."""
    Console(stderr=quiet, highlight=False).print(Text(line), soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their columns."""
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold" if column in WHOLE else "ellipsis", no_wrap=column in WHOLE)
    for row in rows:
        grid.add_row(*(Text(in_short(value)) for value in row))
    Console(highlight=False).print(grid)


def in_short(value: object) -> str:
    """A value as a person wants it in a table."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S")
        case str() if _TIME.match(value):
            return value[:19].replace("T", " ")
        case list() | tuple():
            return ", ".join(in_short(item) for item in value) or "–"
        case _:
            return str(value)


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
