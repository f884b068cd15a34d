"""What the commands say: settings that are wrong, a database that is not there, answers of a server."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.api.recipes import recipes
from app.cli.banner import curl_lines
from app.cli.configuration import make_data_dir, read_settings, stray_variables
from app.cli.connection import Connection, Refused
from app.cli.entry import COMMANDS
from app.cli.printing import in_short, table
from app.cli.remote import show_recipes
from app.errors import Invalid, InvalidSetting, Unavailable
from app.settings import Settings
from app.storage.database import Database
from app.storage.migrate import require_current, upgrade


def test_the_version_is_shown() -> None:
    shown = CliRunner().invoke(COMMANDS, ["--version"])

    assert shown.exit_code == 0
    assert shown.output.startswith("perennial ")


def test_the_help_tells_the_defaults() -> None:
    shown = CliRunner().invoke(COMMANDS, ["up", "--help"], env={"COLUMNS": "120", "TERM": "dumb"}).output

    assert "8000" in shown
    assert "perennial-data" in shown


def test_a_mistyped_variable_is_told() -> None:
    lines = stray_variables({"PERENNIAL_PROT": "1", "PERENNIAL_PORT": "1", "PERENNIAL_KEY": "prn_x", "PATH": "/bin"})

    assert lines == ["There is no setting PERENNIAL_PROT; it is passed over. Did you mean PERENNIAL_PORT?"]


def test_a_log_level_is_one_that_exists_in_any_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_LOG_LEVEL", "debug")
    assert read_settings().log_level == "DEBUG"

    monkeypatch.setenv("PERENNIAL_LOG_LEVEL", "loud")
    with pytest.raises(InvalidSetting, match=r"PERENNIAL_LOG_LEVEL: .*'WARNING'"):
        read_settings()


def test_a_file_in_the_place_of_the_data_folder_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(InvalidSetting, match="PERENNIAL_DATA_DIR: expected a folder"):
        make_data_dir(Settings(data_dir=file))


@pytest.mark.parametrize("act", [upgrade, require_current])
def test_a_database_that_does_not_answer_is_told_without_its_password(act: Any) -> None:
    database = Database("postgresql://anna:secret@127.0.0.1:1/none")

    with pytest.raises(Unavailable, match="does not answer") as told:
        act(database)

    database.close()
    assert "secret" not in str(told.value)


def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(InvalidSetting, match="expected sqlite:///FILE"):
        Database("no address")


def test_a_refusal_of_several_fields_is_told_line_by_line() -> None:
    problem = {
        "detail": "body.name: it is missing, and must be given (and 1 more in `errors`)",
        "errors": [
            {"loc": ["body", "name"], "code": "missing", "detail": "it is missing, and must be given"},
            {"loc": ["body", "input"], "code": "missing", "detail": "it is missing, and must be given"},
        ],
    }
    server = Connection("http://127.0.0.1:8000")
    server._http = httpx.Client(
        base_url=server.url, transport=httpx.MockTransport(lambda request: httpx.Response(422, json=problem))
    )

    with server, pytest.raises(Refused) as told:
        server.get("/v1/models")

    assert str(told.value).splitlines() == [
        "body.name: it is missing, and must be given",
        "body.input: it is missing, and must be given",
    ]


def test_an_id_and_a_time_are_shown_whole_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    prediction = "01a1fd43-c3e0-7634-a48e-2aa68412a5b6"

    table(["prediction", "made", "reason"], [(prediction, "2026-01-02T12:00:00.123000Z", "words " * 20)])

    shown = capsys.readouterr().out
    assert prediction in shown
    assert "2026-01-02 12:00:00" in shown
    assert in_short("2026-01-02") == "2026-01-02"


def test_the_banner_teaches_two_classes_and_enough_of_each_to_start_an_update() -> None:
    create, teach, ask = curl_lines(Settings(port=8123))

    assert '"name":"first"' in create
    assert "seq 20" in teach
    assert '"wide"' in teach
    assert '"tall"' in teach
    assert "http://127.0.0.1:8123/v1/models/first/predict" in ask


def test_the_named_recipes_are_told_in_short_and_one_of_them_in_full(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    answer = recipes().model_dump(mode="json")

    show_recipes(answer, None)
    short = capsys.readouterr().out
    show_recipes(answer, "fine-tune")
    full = capsys.readouterr().out

    for name in ("frozen-backbone", "from-scratch", "drift", "fine-tune"):
        assert f"{name}: " in short
    assert "batch_size" not in short
    assert "kind sgd, lr 0.01, backbone_lr 0.003" in short
    assert "batch_size" in full
    assert "frozen-backbone: " not in full
    with pytest.raises(Invalid, match="expected one of frozen-backbone"):
        show_recipes(answer, "frozen")
