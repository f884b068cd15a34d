"""How far a model has come since an import began: what waits, what was learned, what is live."""

from dataclasses import dataclass

from app.cli.importing.teacher import Teacher


@dataclass(frozen=True)
class Seen:
    """A model at one moment; counts are of the versions made since the import began."""

    queued: int
    claimed: bool
    learned: int
    held_out: int
    refused: int
    live: int
    newest: int
    accuracy: float | None  # on its held-out samples
    learning: bool
    trigger_seconds: float

    @property
    def settled(self) -> bool:
        """Whether nothing waits and nothing is being learned."""
        return not self.queued and not self.claimed

    @property
    def progress(self) -> tuple[int, ...]:
        """What changes when something was learned, and not when an update merely begins, fails and begins again."""
        return (self.newest, self.live, self.learned, self.held_out, self.refused)


class Watch:
    """Looks at a model again and again; each version is counted once."""

    def __init__(self, teacher: Teacher, baseline: int) -> None:
        self._teacher = teacher
        self._newest = baseline
        self._learned = 0
        self._held_out = 0
        self._refused = 0

    def look(self) -> Seen:
        """Look once."""
        claimed = self._teacher.claimed()
        model = self._teacher.show() or {}
        for version in self._teacher.versions_after(self._newest):
            self._newest = version["version"]
            counts = version["counts"]
            if version["verdict"] == "promoted":
                self._learned += counts["learn"]
                self._held_out += counts["holdout"]
            elif version["verdict"] == "rejected":
                self._refused += counts["learn"] + counts["holdout"]
        queued = model["queue"]["queued"]
        if not queued and not claimed:
            claimed = self._teacher.claimed()  # it may have been claimed between the two looks
        return Seen(
            queued=queued,
            claimed=claimed,
            learned=self._learned,
            held_out=self._held_out,
            refused=self._refused,
            live=model["live"],
            newest=self._newest,
            accuracy=model["accuracy"],
            learning=model["learning"] and not model["pinned"],
            trigger_seconds=float(model["recipe"].get("trigger", {}).get("seconds", 10)),
        )
