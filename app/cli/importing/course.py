"""The import itself: stage after stage is chosen, posted and waited for, and written down.

Called by the command with everything it needs; what it knows of the server goes through `Teacher`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.cli.importing.journal import Journal, Posted
from app.cli.importing.report import Report, top_reasons
from app.cli.importing.screen import Screen
from app.cli.importing.selection import Answer, informative_first
from app.cli.importing.source import Source
from app.cli.importing.stages import Plan, Pool, Stage
from app.cli.importing.survey import Item, Survey
from app.cli.importing.teacher import ITEMS, WIRE_BYTES, Teacher, wire_input, wire_size
from app.cli.importing.waiting import Waiting
from app.cli.importing.watch import Seen, Watch
from app.errors import Conflict, Invalid

POOL_TIMES = 2  # candidates for each sample that a stage takes
POOL_LIMIT = 4096
TESTED_BETWEEN = 256
TESTED_AT_END = 2000


@dataclass(frozen=True)
class Manner:
    """How a set is taught."""

    source_name: str = "import"
    first: int = 10
    growth: int = 4
    informative: bool = True
    seed: int = 0
    patience_seconds: float = 300.0


class Course:
    """One import of a surveyed set into a model that exists."""

    def __init__(
        self,
        survey: Survey,
        train: Source,
        test: Source | None,
        teacher: Teacher,
        journal: Journal,
        screen: Screen,
        manner: Manner,
    ) -> None:
        self._survey = survey
        self._train = train
        self._test = test
        self._teacher = teacher
        self._journal = journal
        self._screen = screen
        self._manner = manner
        self._report = Report.of(teacher.name, survey)
        self._plan = Plan.of(survey.per_class, manner.first, manner.growth)
        self._posted: dict[str, Posted] = {}
        self._told: set[str] = set()  # codes of refusals

    def run(self, model: dict[str, Any]) -> Report:
        """Post what is not posted yet, wait until it is learned, and tell what became of it."""
        target = f"{model['name']} {model['created_at']}"
        beginning = self._journal.begin(target, self._survey.digest, self._teacher.newest_version())
        waiting = Waiting(
            self._teacher, Watch(self._teacher, beginning.baseline), self._screen, self._manner.patience_seconds
        )
        mine = {item.client_id for item in (*self._survey.train, *self._survey.test)}
        before = self._journal.posted(target)
        self._posted = {name: one for name, one in before.items() if name in mine and not one.refused}
        if beginning.resumed:
            self._screen.say(f"Going on: {len(self._posted):,} of {len(mine):,} samples are posted already.")
        pool = Pool(self._survey.train, self._posted, self._manner.seed)
        live_before = model["live"]
        seen = self._wait(waiting) if self._posted else None
        for stage in self._plan.stages:
            self._screen.stage(stage.number, len(self._plan.stages))
            chosen = self._choose(pool, stage, taught=seen is not None or live_before > 1)
            self._post(target, chosen, self._train)
            if chosen or seen is None:
                seen = self._wait(waiting)
                self._tell(stage, seen, len(chosen), live_before)
            if stage.number == 1:  # not before something useful is live
                self._post(target, [one for one in self._survey.test if one.client_id not in self._posted], self._test)
        return self._sum_up(self._wait(waiting))

    def _wait(self, waiting: Waiting) -> Seen:
        self._show_posted()
        seen = waiting.until_settled(len(self._survey.train))
        self._teacher.until_served(
            seen.live, wire_input(self._survey.kind, self._train.read(self._survey.train[0].index))
        )
        self._report.first_live_seconds = waiting.first_live_seconds
        return seen

    def _choose(self, pool: Pool, stage: Stage, *, taught: bool) -> list[Item]:
        """Take a stage's samples out of the pool: informative ones first, once the model knows anything."""
        wanted = pool.wanted(stage)
        if not self._manner.informative or not taught or stage.last or not wanted:
            return pool.take(wanted)
        candidates = pool.candidates(wanted, POOL_TIMES, POOL_LIMIT)
        answers: dict[str, Answer] = {}
        for items, contents in self._chunks(candidates, self._train):
            self._show_posted(f"choosing for {self._stage_words(stage)}")
            inputs = [wire_input(self._survey.kind, content) for content in contents]
            answers.update(zip((item.client_id for item in items), self._teacher.ask(inputs), strict=True))
        return pool.take(wanted, informative_first(candidates, answers, wanted, self._manner.seed))

    def _post(self, target: str, items: Sequence[Item], source: Source | None) -> None:
        if source is None:
            return
        for chunk, contents in self._chunks(items, source):
            samples = []
            for item, content in zip(chunk, contents, strict=True):
                sample = {"id": item.client_id, "label": item.label, "source": self._manner.source_name}
                if item.test:
                    sample["split"] = "test"
                samples.append({**sample, **wire_input(self._survey.kind, content)})
            sent = self._teacher.post(samples)
            self._journal.record(target, sent.posted)
            self._posted.update((one.sample, one) for one in sent.posted)
            self._report.known += sent.duplicates
            for one in sent.posted:
                if one.refused and one.outcome not in self._told:
                    self._told.add(one.outcome)
                    self._screen.say(f"Refused: {one.detail}")
            for note in sent.notes:
                self._screen.say(f"The server says: {note}")
            self._show_posted()

    def _chunks(self, items: Sequence[Item], source: Source) -> Iterator[tuple[list[Item], list[bytes]]]:
        """Read items in parts that one request may hold."""
        chunk: list[Item] = []
        contents: list[bytes] = []
        size = 0
        for item in items:
            content = source.read(item.index)
            more = wire_size(self._survey.kind, content)
            if chunk and (len(chunk) == ITEMS or size + more > WIRE_BYTES):
                yield chunk, contents
                chunk, contents, size = [], [], 0
            chunk.append(item)
            contents.append(content)
            size += more
        if chunk:
            yield chunk, contents

    def _tell(self, stage: Stage, seen: Seen, count: int, live_before: int) -> None:
        words = f"{self._stage_words(stage)}: {count:,} samples; version {seen.live} is live"
        words += f" after {self._screen.seconds:.0f} s" if seen.live > live_before else ""
        if seen.accuracy is not None:
            words += f", {100 * seen.accuracy:.1f} % right on held-out samples"
        right = None if stage.last else self._tested(TESTED_BETWEEN)
        if right is not None:
            words += f", {100 * right:.1f} % of {min(TESTED_BETWEEN, len(self._survey.test))} to test with"
        self._screen.say(f"{words[0].upper()}{words[1:]}.")

    def _tested(self, limit: int) -> float | None:
        """Share of right answers on samples from all over the test set."""
        tests = self._survey.test
        if self._test is None or not tests:
            return None
        count = min(limit, len(tests))
        right = asked = 0
        for items, contents in self._chunks([tests[place * len(tests) // count] for place in range(count)], self._test):
            answers = self._teacher.ask([wire_input(self._survey.kind, content) for content in contents], top=1)
            right += sum(bool(a.top) and a.top[0][0] == item.label for a, item in zip(answers, items, strict=True))
            asked += len(items)
        self._report.tested = asked
        return right / asked

    def _sum_up(self, seen: Seen) -> Report:
        """Read what became of each sample; those in none of the other states are learned."""
        report = self._report
        train = {item.client_id for item in self._survey.train}
        reasons = [one.detail for one in self._refused()]
        counts: dict[str, int] = {}
        for state in ("queued", "claimed", "held_out", "quarantined", "withdrawn"):
            found = self._teacher.receipts(state=state, source=self._manner.source_name)
            mine = [receipt for receipt in found if receipt["client_id"] in train]
            counts[state] = len(mine)
            reasons += [str(receipt["reason"]) for receipt in mine if state == "quarantined"]
        taken = [one.sample for one in self._posted.values() if not one.refused]
        report.posted = sum(name in train for name in taken)
        report.test_posted = len(taken) - report.posted
        report.held_out, report.quarantined = counts["held_out"], counts["quarantined"]
        report.withdrawn = counts["withdrawn"]
        report.waiting = counts["queued"] + counts["claimed"]
        report.learned = report.posted - sum(counts.values())
        report.refused = len(self._refused())
        report.reasons = top_reasons(reasons)
        report.live, report.accuracy = seen.live, seen.accuracy
        report.test_accuracy = self._tested(TESTED_AT_END)
        report.seconds = self._screen.seconds
        return report

    def _refused(self) -> list[Posted]:
        return [one for one in self._posted.values() if one.refused]

    def _show_posted(self, note: str = "") -> None:
        taken = sum(not one.refused for one in self._posted.values())
        total = len(self._survey.train) + len(self._survey.test)
        self._screen.posted(taken, total, len(self._posted) - taken, note)

    def _stage_words(self, stage: Stage) -> str:
        return f"stage {stage.number} of {len(self._plan.stages)}"


def require_fit(model: dict[str, Any], survey: Survey) -> None:
    """Raise where the set is nothing that the model takes."""
    takes, has = model["input"], survey.input
    if takes["kind"] != has["kind"]:
        raise Conflict(f"Model {model['name']!r} takes {takes['kind']}, and the set holds {has['kind']}.")
    if takes["kind"] == "features" and takes["size"] != has["size"]:
        raise Invalid(
            f"Model {model['name']!r} takes {takes['size']} numbers, and the set's samples have {has['size']}."
        )
