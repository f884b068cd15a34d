"""`perennial import` against a real server and worker: killed in the middle, continued, and nothing lost or doubled."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from app.storage.weights import WeightStore
from tests.app.storage.stores import Stores
from tests.processes import school
from tests.processes.processes import ADMIN_KEY, DEADLINE_SECONDS, Installation, free_port, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),  # several commands, one after the other
    pytest.mark.parametrize("url", ["sqlite"], indirect=True),
]

ROOT = Path(__file__).resolve().parents[2]
COUNT = 300


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Real digits as PNG files, a folder for each class, a sixth of them to test with."""
    digits = load_digits()
    for place in range(COUNT):
        split = "test" if place % 6 == 5 else "train"
        folder = tmp_path / "pictures" / split / f"digit-{digits.target[place]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[place] * 15).astype(np.uint8)).save(folder / f"{place}.png")
    return tmp_path / "pictures"


class Import:
    """The command, in a process of its own."""

    def __init__(self, pictures: Path, url: str) -> None:
        recipe = pictures.parent / "recipe.json"
        recipe.write_text(json.dumps({"early_stopping": {"passes": 3}, "trigger": {"samples": 32, "seconds": 1}}))
        self._arguments = [str(pictures), "--model", "digits", "--create", "--recipe", str(recipe)]
        self._arguments += [
            "--first",
            "5",
            "--json",
            "--journal",
            str(pictures.parent / "journal.db"),
            "--url",
            url,
            "--key",
            ADMIN_KEY,
        ]

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "app.cli.entry", "import", *self._arguments],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("PERENNIAL_")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill_once(self, stores: Stores, count: int) -> None:
        """Run it until the server has so many samples, and no longer."""
        with self.start() as process:
            wait_until(lambda: stored(stores) >= count or process.poll() is not None, f"{count} samples are posted")
            process.send_signal(signal.SIGKILL)
            _, said = process.communicate()
            assert process.returncode == -signal.SIGKILL, said


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    with process:
        answer, said = process.communicate(timeout=2 * DEADLINE_SECONDS)
    assert process.returncode == 0, said
    report: dict[str, Any] = json.loads(answer)
    return report


def stored(stores: Stores) -> int:
    models = stores.registry.models()
    return sum(school.states(stores, models[0]).values()) if models else 0


def check_all_is_there(stores: Stores, report: dict[str, Any], installation: Installation) -> None:
    model = stores.registry.model("digits")
    receipts = stores.receipts.list(model, limit=10 * COUNT)
    left_out = report["exact_duplicates"] + report["near_duplicates"]
    assert len(receipts) == report["posted"] + report["test_posted"] == COUNT - left_out
    assert sum(receipt.sample.side == "test" for receipt in receipts) == report["test_posted"] == COUNT // 6
    assert report["test_accuracy"] > 0.5
    assert len({receipt.sample.client_id for receipt in receipts}) == len(receipts)
    fates = [report[fate] for fate in ("learned", "held_out", "waiting", "quarantined", "withdrawn")]
    assert sum(fates) == report["posted"]
    assert report["learned"] > 0
    assert report["live"] == stores.registry.live(model.id).version.number > 1
    ids = [receipt.sample.id for receipt in receipts]
    school.check_nothing_lost(stores, model, ids, WeightStore(installation.folder / "weights"))


def test_a_killed_import_goes_on_where_it_was(installation: Installation, stores: Stores, pictures: Path) -> None:
    with installation.server() as http, installation.process("worker") as worker:
        command = Import(pictures, str(http.base_url))
        command.kill_once(stores, 51)
        posted = stored(stores)
        with sqlite3.connect(pictures.parent / "journal.db") as journal:  # as a kill before the record leaves it
            journal.execute("DELETE FROM posted WHERE sample IN (SELECT sample FROM posted LIMIT 20)")
        journal.close()

        report = finish(command.start())

        assert 50 < posted < COUNT
        assert report["known"] >= 20
        check_all_is_there(stores, report, installation)
        again = finish(command.start())
        assert (again["known"], again["posted"], again["refused"]) == (0, report["posted"], 0)
        check_all_is_there(stores, again, installation)
        assert worker.stop() == 0


def test_an_import_outlives_its_server(installation: Installation, stores: Stores, pictures: Path) -> None:
    port = str(free_port())
    with installation.process("worker") as worker:
        with installation.process("app", PORT=port) as server:
            process = Import(pictures, f"http://127.0.0.1:{port}").start()
            wait_until(lambda: stored(stores) > 0 or process.poll() is not None, "something is posted")
            server.send_signal(signal.SIGKILL)
            wait_until(lambda: server.exit_code is not None, "the server is gone")
        with installation.process("app", PORT=port) as server:
            report = finish(process)
            assert server.stop() == 0
        check_all_is_there(stores, report, installation)
        assert worker.stop() == 0


def test_ctrl_c_says_how_far_it_came_and_how_to_go_on(
    installation: Installation, stores: Stores, pictures: Path
) -> None:
    with installation.server() as http, Import(pictures, str(http.base_url)).start() as process:
        wait_until(lambda: stored(stores) > 0 or process.poll() is not None, "the first stage is posted")
        process.send_signal(signal.SIGINT)
        answer, said = process.communicate(timeout=3 * DEADLINE_SECONDS)

    assert process.returncode == 130, said
    # What the server has and the answer had not told yet is not counted as posted.
    posted = r"Stopped: (\d+ of \d+ samples are posted|nothing is posted yet)\. The same command goes on from there\."
    assert re.search(posted, said)
    assert answer == ""
    assert "Traceback" not in said


def test_a_model_that_does_not_fit_is_told_before_anything_is_posted(
    installation: Installation, stores: Stores, pictures: Path
) -> None:
    school.create(stores, "digits")
    with installation.server() as http, Import(pictures, str(http.base_url)).start() as process:
        _, said = process.communicate(timeout=3 * DEADLINE_SECONDS)

    assert process.returncode == 1
    assert "takes features, and the set holds image" in said
    assert stored(stores) == 0
