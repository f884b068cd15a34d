"""What the benchmark of serving reads, prints and leaves behind."""

import json
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving import table, wrk

OUTPUT = """Running 5s test @ http://127.0.0.1:1/predict
  1 threads and 8 connections
  Non-2xx or 3xx responses: 20

{"duration": 2000000, "requests": 1020, "p50": 1500, "p90": 2500, "p99": 12000, "max": 30000, %s}
"""
NO_ERRORS = '"connect": 0, "read": 0, "write": 0, "status": 20, "timeout": 0'
BROKEN = '"connect": 1, "read": 2, "write": 3, "status": 0, "timeout": 4'


def test_refusals_are_no_answers() -> None:
    load = wrk.parse(OUTPUT % NO_ERRORS)
    assert (load.rps, load.refused, load.errors) == (500.0, 20, 20)


def test_times_are_in_milliseconds() -> None:
    load = wrk.parse(OUTPUT % NO_ERRORS)
    assert (load.p50_ms, load.p90_ms, load.p99_ms, load.max_ms) == (1.5, 2.5, 12.0, 30.0)


def test_every_kind_of_broken_connection_is_an_error() -> None:
    assert wrk.parse(OUTPUT % BROKEN).errors == 10


def test_an_output_without_a_result_is_refused() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused")


def round_of(rps: float, p99: float, errors: int = 0, clients: int = 8) -> dict[str, Any]:
    return {"clients": clients, "rps": rps, "p50_ms": p99 / 2, "p99_ms": p99, "errors": errors}


def test_a_cell_shows_median_and_spread_of_the_rounds() -> None:
    assert table.cell([round_of(1200, 12), round_of(1000, 8), round_of(900, 40)]) == "1,000 [900–1,200]; 6.0 / 12 ms"


def test_a_cell_with_errors_says_so() -> None:
    assert table.cell([round_of(100, 8, errors=3), round_of(100, 8, errors=2)]).endswith("**5 errors**")


def test_a_row_that_never_ran_is_shown_as_failed() -> None:
    assert table.cell([]) == "failed"


def found(**changes: Any) -> dict[str, Any]:
    row = {"system": "A", "model": "mlp", "dtype": "fp32", "settings": {"threads": 1, "BENCH_WORKERS": "0"}}
    rounds = [[round_of(10, 1, clients=1), round_of(20, 2)], [round_of(12, 1, clients=1), round_of(24, 2)]]
    return {
        "plan": {"clients": [1, 8]},
        "rows": [{**row, "rounds": rounds, "failed": []}],
        "limits": {"forward | mlp | fp32": {"rps": [100.0, 110.0]}},
        **changes,
    }


def test_the_table_has_a_row_for_each_system_and_limit() -> None:
    lines = table.tables(found()).splitlines()
    assert lines[0] == "| MLP 784-128-10, 784 numbers in JSON | 1 client | 8 clients | settings |"
    assert lines[2] == "| A | 11 [10–12]; 0.5 / 1.0 ms | 22 [20–24]; 1.0 / 2.0 ms | threads 1, workers 0 |"
    assert lines[3] == "| *limit: forward, no HTTP* | 105 [100–110] | | |"


def test_a_kind_that_was_not_measured_has_no_table() -> None:
    assert "ResNet" not in table.tables(found())


def test_only_what_stands_between_the_marks_of_the_readme_changes() -> None:
    readme = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    once = table.filled(readme, "new")
    assert once == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    assert table.filled(once, "new") == once


def test_a_readme_without_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="has no"):
        table.filled("nothing here", "new")


@pytest.fixture
def bodies(tmp_path: Path) -> Path:
    wrk.write_bodies(tmp_path / "bodies", [b"one", b"two", b"three"])
    return tmp_path / "bodies"


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
@pytest.mark.parametrize("rate", [None, 100.0])
def test_the_load_posts_the_bodies_in_turn_and_counts_refusals(bodies: Path, rate: float | None) -> None:
    seen: list[bytes] = []
    number = count()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            seen.append(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["X-Key"] == "k"
            self.send_response(429 if next(number) % 2 else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as the base class has it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        load = wrk.load(server.server_port, "/x", {"X-Key": "k"}, bodies, clients=1, seconds=1, rate=rate)
        server.shutdown()
    assert set(seen) == {b"one", b"two", b"three"}
    assert seen[:4] == [*seen[:3], seen[0]]
    assert 0 < load.refused < load.answers
    assert rate is None or load.answers <= 1.3 * rate * load.seconds


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has started is read out of /proc")
def test_a_server_ends_with_all_it_has_started(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = "import subprocess, time; subprocess.Popen(['sleep', '300'], start_new_session=True); print(time.time())"
    serving = (
        "import http.server, subprocess, sys;"
        f"subprocess.run([sys.executable, '-c', {started!r}]);"
        f"http.server.HTTPServer(('127.0.0.1', {port}), http.server.BaseHTTPRequestHandler).serve_forever()"
    )
    harness = (
        "import json, os, pathlib, sys\n"
        "from benchmarks.serving.processes import descendants, server\n"
        f"with server([sys.executable, '-c', {serving!r}], {{}}, {port}, pathlib.Path({str(tmp_path)!r})) as pid:\n"
        "    during = descendants(os.getpid())\n"
        "print(json.dumps([len(during), len(descendants(os.getpid()))]))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", harness],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert json.loads(ran.stdout) == [2, 0]
