"""Tests of updates run over real stores on a SQLite file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.school import School


@pytest.fixture
def school(tmp_path: Path) -> Iterator[School]:
    school = School(tmp_path)
    yield school
    school.close()
