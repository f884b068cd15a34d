"""What an import shows: two bars that stay, and sentences above them. On no terminal, the sentences alone."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from app.cli.importing.watch import Seen
from app.cli.printing import percent

WIDE = 100  # columns


class Screen:
    """The terminal while an import runs; `quiet` leaves stdout to the answer."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=quiet, highlight=False)
        self._began = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=24 if self._console.width >= WIDE else 14),
            TextColumn("{task.fields[count]:>13}"),
            TextColumn("{task.fields[words]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._bars: dict[str, TaskID] = {}
        self._stage = ""
        self._refused = 0
        self.so_far = "nothing is posted yet."

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def close(self) -> None:
        """Take the bars away."""
        self._progress.stop()

    @property
    def seconds(self) -> float:
        """Since the import was called."""
        return time.monotonic() - self._began

    def say(self, words: str) -> None:
        """Print a sentence above the bars."""
        self._console.print(Text(words), soft_wrap=not self._console.is_terminal)

    def read(self, done: int, total: int) -> None:
        """Show how far the set is read."""
        self._show("reading", done, total, "")

    def read_through(self) -> None:
        """Take the bar of reading away."""
        self._progress.remove_task(self._bars.pop("reading"))

    def stage(self, number: int, of: int) -> None:
        self._stage = f"stage {number} of {of}"

    def posted(self, done: int, total: int, refused: int, note: str = "") -> None:
        """Show how many of the set's samples the server has answered to."""
        self._refused = refused
        self.so_far = f"{done:,} of {total:,} samples are posted."
        self._show("posted", done, total, note or self._stage)

    def learned(self, seen: Seen, total: int) -> None:
        """Show what the model made of them."""
        wide = self._console.width >= WIDE
        words = f"{seen.held_out:,} held out · {seen.refused + self._refused:,} refused"
        words += f" · version {seen.live}" if wide else f" · v{seen.live}"
        if seen.accuracy is not None:
            words += f" · {percent(seen.accuracy)}{' right' if wide else ''}"
        self._show("learned", min(total, seen.learned + seen.held_out), total, words)

    def _show(self, name: str, done: int, total: int, words: str) -> None:
        count = f"{done:,}/{total:,}"
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=total, count=count, words=words)
        self._progress.update(self._bars[name], completed=done, total=total, count=count, words=words)
