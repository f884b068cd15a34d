"""Several serving processes that share a port: rolled back together, killed one by one, added up."""

import os
import re
import signal
import statistics
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.networks.catalog import build
from app.networks.serialization import to_bytes
from app.networks.spec import NetworkSpec
from app.storage.states import ArtifactKind
from app.storage.tables import Model
from app.storage.weights import WeightStore
from tests.app.storage.stores import Stores
from tests.processes import school
from tests.processes.processes import ADMIN_KEY, Installation, free_port, is_ready, wait_until

ROOT = Path(__file__).resolve().parents[2]
ROLLBACK_MS = 1000

pytestmark = pytest.mark.slow


def publish(stores: Stores, installation: Installation, model: Model, seed: int) -> int:
    """Make a new version live, as a worker would; its epoch."""
    school.post(stores, model, school.samples(2, seed=seed))
    claim = stores.claim(model)
    outcome = stores.outcome(claim)
    network = build(NetworkSpec.from_json(claim.parent.spec), {})
    file = WeightStore(installation.folder / "weights").write(
        outcome.version_id, ArtifactKind.WEIGHTS, to_bytes(network.state_dict())
    )
    stores.queue.commit(claim, type(outcome)(**{**vars(outcome), "weights": file}))
    return stores.registry.live(model.id).epoch


def all_serve(stores: Stores, model: Model, epoch: int, count: int) -> bool:
    return [state.epoch >= epoch for state in stores.roster.fresh(model.id, 30)] == [True] * count


def ask(http: httpx.Client) -> dict[str, Any]:
    answer = http.post("/v1/models/tiny/predict", json={"inputs": [{"features": [1.0] * school.SIZE}]})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def predicted(http: httpx.Client) -> float:
    """How many inputs were answered, by the figures of whichever process is asked."""
    text = http.get("/metrics", headers={"Connection": "close"}).text
    return sum(float(value) for value in re.findall(r"^perennial_predictions_total\{.*\} (\S+)$", text, re.MULTILINE))


@contextmanager
def clients(http: httpx.Client, count: int) -> Iterator[list[httpx.Client]]:
    """So many clients with a connection each."""
    found = [httpx.Client(base_url=http.base_url, headers=http.headers, timeout=30) for _ in range(count)]
    try:
        yield found
    finally:
        for one in found:
            one.close()


@pytest.mark.parametrize("count", [2, 8])
def test_a_rollback_to_a_warm_version_reaches_all_processes_within_a_second(
    installation: Installation, stores: Stores, count: int
) -> None:
    model = school.create(stores)
    with installation.several(count, POLL_SECONDS="0.25") as (http, _):
        wait_until(lambda: all_serve(stores, model, 1, count), "all serve the first version")
        for seed in range(2):
            epoch = publish(stores, installation, model, seed)
            wait_until(lambda epoch=epoch: all_serve(stores, model, epoch, count), "all follow")  # type: ignore[misc]
        took = []
        for to in (1, 3, 2, 1, 3):
            answer = http.post("/v1/models/tiny/rollback", json={"to": to, "samples": "keep"}).json()
            assert (answer["live"], answer["stragglers"]) == (to, [])
            assert len({server["pid"] for server in answer["servers"]}) == count
            took.append(answer["took_ms"])
            with clients(http, 2 * count) as askers:
                assert {ask(asker)["version"] for asker in askers} == {to}
    print(f"{count} processes, rollbacks took {took} ms")  # noqa: T201  kept by pytest for whoever measures
    assert statistics.median(took) <= ROLLBACK_MS, took


def test_processes_share_connections_and_what_one_answers_the_others_know(
    installation: Installation, stores: Stores
) -> None:
    school.create(stores)
    with installation.several(3) as (http, folder), clients(http, 24) as askers:
        answers = [ask(asker) for asker in askers]
        held = struct.unpack("iii", (folder / "connections").read_bytes())
        ids = [answer["predictions"][0]["prediction_id"] for answer in answers]
        for asker, identity in zip(reversed(askers), ids, strict=True):
            found = asker.get(f"/v1/models/tiny/predictions/{identity}")
            assert found.status_code == 200, found.text
        with clients(http, 6) as others:
            assert {predicted(other) for other in others} == {24.0}
            assert {other.get("/readyz").json()["status"] for other in others} == {"ready"}
    assert sum(held) >= 24
    assert min(held) >= 4, held


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def served(installation: Installation, count: int) -> Iterator[tuple[httpx.Client, int, Path]]:
    """`perennial serve --processes`, as a user calls it; ended in order after the block."""
    port, log = free_port(), installation.folder / "serve.log"
    settings = {
        "PERENNIAL_DATABASE_URL": installation.url,
        "PERENNIAL_DATA_DIR": str(installation.folder),
        "PERENNIAL_ADMIN_KEY": ADMIN_KEY,
    }
    command = [sys.executable, "-m", "app.cli.entry", "serve", "--processes", str(count), "--port", str(port)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PERENNIAL_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**clean, **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as http:
            wait_until(lambda: process.poll() is not None or is_ready(http), "the first process is ready")
            assert process.poll() is None, log.read_text()
            yield http, process.pid, log
        pids = children(process.pid)
        process.terminate()
        assert process.wait(60) == 0
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()], "all processes have ended"
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
@pytest.mark.timeout(240)
def test_a_killed_process_fails_only_what_it_was_answering_and_is_replaced(
    installation: Installation, stores: Stores
) -> None:
    school.create(stores)
    with served(installation, 2) as (http, supervisor, log), clients(http, 8) as askers:
        wait_until(lambda: log.read_text().count("taking connections") == 2, "both take connections")
        failures: Counter[int] = Counter()
        answered: Counter[int] = Counter()
        done = threading.Event()

        def keep_asking(number: int) -> None:
            while not done.is_set():
                try:
                    ask(askers[number])
                    answered[number] += 1
                except httpx.TransportError:
                    failures[number] += 1

        threads = [threading.Thread(target=keep_asking, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(answered[number] > 5 for number in range(8)), "all are answered")
        before, counted = children(supervisor), predicted(http)
        os.kill(before[0], signal.SIGKILL)
        at_death = dict(answered)
        wait_until(lambda: all(answered[number] > at_death[number] + 20 for number in range(8)), "the other goes on")
        while_one_was_gone = predicted(http)
        wait_until(lambda: log.read_text().count("taking connections") == 3, "it is replaced")
        done.set()
        for thread in threads:
            thread.join()
        after = children(supervisor)
        assert len(after) == 2
        assert before[1] in after
        assert before[0] not in after
        assert max(failures.values(), default=0) <= 1, failures
        assert while_one_was_gone >= counted
        with clients(http, 4) as others:
            told = [predicted(other) for other in others]
        assert len(set(told)) == 1
        assert told[0] >= while_one_was_gone
        assert "Traceback" not in log.read_text()


def test_the_first_admin_key_is_printed_once(installation: Installation) -> None:
    folder = installation.folder
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PERENNIAL_")}
    settings = {
        "PERENNIAL_DATABASE_URL": installation.url,
        "PERENNIAL_DATA_DIR": str(folder),
        "PERENNIAL_ADMIN_KEY": "",
    }
    command = [sys.executable, "-m", "app.cli.entry", "serve", "--processes", "2", "--port", "0"]
    log = folder / "keys.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**clean, **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: process.poll() is not None or log.read_text().count("taking connections") == 2, "both run")
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert log.read_text().count("The first admin key, shown once: prn_") == 1
