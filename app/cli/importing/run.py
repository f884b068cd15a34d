"""What `perennial import` does with its options: opens the set, looks at it, makes what the import needs, and tells.

Called by the command, which alone knows how options look.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.cli.connection import Connection
from app.cli.importing.course import Course, Manner, require_fit
from app.cli.importing.journal import Journal
from app.cli.importing.report import plan_in_words, survey_in_words
from app.cli.importing.screen import Screen
from app.cli.importing.sets import Columns, opened
from app.cli.importing.source import Source
from app.cli.importing.stages import Plan
from app.cli.importing.survey import Survey, Surveyor
from app.cli.importing.teacher import Teacher
from app.cli.printing import say, table
from app.errors import Invalid

STOPPED = 130


@dataclass(frozen=True)
class Asked:
    """The options of one call."""

    source: Path
    model: str
    test: Path | None
    columns: Columns
    new_model: dict[str, Any] | None  # None: the model must exist
    size: int | None
    manner: Manner
    keep_duplicates: bool
    near_bits: int
    journal: Path | None
    dry_run: bool
    as_json: bool
    url: str
    key: str


def run(asked: Asked) -> int:
    """Import, and say what came of it; the exit code. Raises what the tree of errors holds."""
    screen = Screen(quiet=asked.as_json)
    with opened(asked.source, asked.test, asked.columns) as (train, test):
        try:
            with screen:
                survey = _surveyed(asked, train, test, screen)
                if not asked.dry_run:
                    return _taught(asked, survey, train, test, screen)
        except KeyboardInterrupt:
            screen.say(f"Stopped: {screen.so_far} The same command goes on from there.")
            return STOPPED
    plan = Plan.of(survey.per_class, asked.manner.first, asked.manner.growth)
    if asked.as_json:
        sizes = plan.sizes(survey.per_class)
        say(json.dumps({"classes": survey.per_class, "stages": sizes, "input": survey.input}))
    else:
        table(["stage", "of each class", "samples"], plan_in_words(survey, plan))
    return 0


def _surveyed(asked: Asked, train: Source, test: Source | None, screen: Screen) -> Survey:
    total = len(train) + (0 if test is None else len(test))
    surveyor = Surveyor(
        source_name=asked.manner.source_name,
        keep_duplicates=asked.keep_duplicates,
        near_bits=asked.near_bits,
        on_read=lambda done: screen.read(done, total),
    )
    survey = surveyor.survey(train, test)
    screen.read_through()
    for line in survey_in_words(survey):
        screen.say(line)
    return survey


def _taught(asked: Asked, survey: Survey, train: Source, test: Source | None, screen: Screen) -> int:
    with Connection(asked.url, asked.key) as connection, Journal(asked.journal or default_journal()) as journal:
        teacher = Teacher(connection, asked.model, patience_seconds=asked.manner.patience_seconds, on_wait=screen.say)
        model = teacher.show()
        if model is None:
            model = _made(asked, survey, teacher)
            screen.say(f"Model {asked.model} is made: {_in_words(model)}.")
        require_fit(model, survey)
        report = Course(survey, train, test, teacher, journal, screen, asked.manner).run(model)
    screen.close()
    for line in [json.dumps(report.to_json())] if asked.as_json else report.in_words():
        say(line)
    return 0


def _made(asked: Asked, survey: Survey, teacher: Teacher) -> dict[str, Any]:
    if asked.new_model is None:
        raise Invalid(f"There is no model {asked.model!r} yet; --create makes one that fits the set.")
    shape = survey.input if asked.size is None else {**survey.input, "size": asked.size}
    return teacher.create({"input": shape, "labels": list(survey.per_class), **asked.new_model})


def default_journal() -> Path:
    """Beside the data folder, as a client on the server's machine sees it."""
    return Path(os.environ.get("PERENNIAL_DATA_DIR", "perennial-data")).resolve().parent / "perennial-imports.db"


def _in_words(model: dict[str, Any]) -> str:
    shape = model["input"]
    takes = f"{shape['size']} numbers" if shape["kind"] == "features" else f"pictures of {shape['size']} pixels a side"
    return f"{model['network']['architecture']}, {takes}, {len(model['labels'])} classes"
