"""The README's curl lines, pasted as they stand into a shell beside a real `perennial up`."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli.instance import Instance

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEADLINE_SECONDS = 60.0


def block(name: str) -> str:
    """The fenced lines after the README's mark of that name."""
    mark = f"<!-- run by tests/processes/test_readme.py: {name} -->"
    found = re.search(re.escape(mark) + r"\n```sh\n(.*?)```", README, re.DOTALL)
    assert found is not None, name
    return found[1]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    with Instance(tmp_path / "data") as running:
        yield running


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_lines_of_the_readme_do_what_it_says(instance: Instance) -> None:
    def paste(name: str) -> Any:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block(name)],
            cwd=ROOT,
            env={**os.environ, "PERENNIAL_URL": instance.url, "PERENNIAL_KEY": instance.key},
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=True,
        )
        return json.loads(done.stdout)

    assert paste("create")["live"] == 1
    assert paste("predict")["predictions"][0]["label"] is None  # it knows nothing yet

    taught = paste("label")
    assert (taught["accepted"], taught["rejected"]) == (120, [])
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (answer := paste("predict"))["version"] == 1:
        assert time.monotonic() < deadline, "no version was promoted"
    assert answer["predictions"][0]["label"] == "wide"

    moved = paste("rollback")
    assert moved["live"] < moved["previous"]
    assert moved["stragglers"] == []
