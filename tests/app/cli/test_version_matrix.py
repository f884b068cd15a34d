"""The matrix on a terminal: rows of classes, columns of versions, the newest that fit."""

from typing import Any

import pytest

from app.api.schemas.matrix import MatrixAnswer
from app.cli import version_matrix


@pytest.fixture
def answer() -> dict[str, Any]:
    extra = MatrixAnswer.model_config["json_schema_extra"]
    assert isinstance(extra, dict)
    found = extra["examples"]
    assert isinstance(found, list)
    return MatrixAnswer.model_validate(found[0]).model_dump(mode="json")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def test_a_class_is_a_row_that_reads_from_the_oldest_version_to_the_newest(
    answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    version_matrix.show(answer)

    lines = {line.split("  ")[0].strip(): line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert lines["held-out samples of"][-2:] == ["v16", "*v17"]
    assert lines["setosa"] == ["setosa", "12", "90.0", "%", "100.0", "%"]
    assert lines["versicolor"] == ["versicolor", "8", "–", "87.5", "%"]
    assert lines["test split"] == ["test", "split", "50", "–", "94.0", "%"]
    assert lines["2026-01-02"] == ["2026-01-02", "4", "–", "100.0", "%"]


def test_the_summary_is_told_in_words(answer: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    version_matrix.show(answer)

    shown = capsys.readouterr().out
    assert "forgotten: the best ever less now: −10.0 points" in shown
    assert "accuracy now, mean of the classes: 93.8 %" in shown


def test_on_a_narrow_terminal_the_newest_versions_are_shown(
    answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    version_matrix.show(answer, width=40)

    shown = capsys.readouterr()
    assert "v16" not in shown.out
    assert "*v17" in shown.out
    assert "1 earlier versions did not fit" in shown.err


def test_a_model_that_was_never_measured_has_no_summary(capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = {"version": 1, "live": True, "accuracy": None, "test": None, "by_class": [], "by_slice": []}

    version_matrix.show(
        {"classes": [], "slices": [], "slice": "day", "versions": [row], "summary": {"versions": 0}}, width=80
    )

    assert "of the line" not in capsys.readouterr().out
