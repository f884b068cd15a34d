"""What the demo shows: one progress bar with a climbing line of accuracy, and sentences above it."""

from collections import deque
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

BARS = "▁▂▃▄▅▆▇█"
WINDOW = 200


class Accuracy:
    """The share of right answers among the last ones, and how it went so far."""

    def __init__(self, window: int = WINDOW) -> None:
        self._last: deque[bool] = deque(maxlen=window)
        self._history: deque[float] = deque(maxlen=24)

    def add(self, answers: list[bool]) -> None:
        self._last.extend(answers)
        self._history.append(self.now)

    @property
    def now(self) -> float:
        return sum(self._last) / len(self._last) if self._last else 0.0

    def line(self) -> str:
        """The history as a row of bars, each an eighth of the whole."""
        return "".join(BARS[min(int(share * len(BARS)), len(BARS) - 1)] for share in self._history)


class Screen:
    """The terminal while the demo runs; on no terminal, the sentences alone."""

    def __init__(self, total: int) -> None:
        self.console = Console(highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("[bold green]{task.fields[line]}[/] {task.fields[accuracy]}"),
            TimeElapsedColumn(),
            console=self.console,
        )
        self._bar = self._progress.add_task("streaming", total=total, line="", accuracy="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, items: int, accuracy: Accuracy) -> None:
        self._progress.update(
            self._bar, advance=items, line=accuracy.line(), accuracy=f"{100 * accuracy.now:.0f} % right before taught"
        )

    def step(self, text: str) -> None:
        """Open a part of the story."""
        self.console.print(f"\n[bold]{text}[/]")

    def say(self, text: str) -> None:
        self.console.print(f"  {text}", markup=False, soft_wrap=not self.console.is_terminal)

    def summary(self, rows: list[tuple[str, str, bool]]) -> None:
        """Print what was promised, what was measured, and whether it held."""
        grid = Table("", "measured", "", title="What happened", title_justify="left")
        for what, measured, held in rows:
            grid.add_row(what, measured, "[green]holds[/]" if held else "[bold red]does not hold[/]")
        self.console.print()
        self.console.print(grid)
