"""A thousand versions go live one after another: memory stays flat, no file stays open, what was let go is gone."""

import gc
import sys
import threading
import weakref
from collections import Counter
from contextlib import ExitStack, suppress
from functools import reduce
from itertools import cycle
from operator import and_
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.serving.host_memory import give_back

PREDICT = "/v1/models/iris/predict"
FEATURES = {"inputs": [{"features": [1.0, 2.0, 3.0, 4.0]}] * 4}
SWAPS = 1000
LOOKS = 20


def resident_kib() -> int:
    gc.collect()
    give_back()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def handles() -> Counter[str]:
    """Count what the open handles lead to; one that is there for a moment only, while the roster is told, is left out.

    What was left behind is in every look, so the fewest of several looks tell.
    """
    looks = []
    for _ in range(LOOKS):
        found: Counter[str] = Counter()
        for handle in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):
                found[str(handle.readlink())] += 1
        looks.append(found)
    return reduce(and_, looks)


def fill_pool(service: Any) -> None:
    """Open every connection to the database that is kept, so that none is opened for the first time later."""
    engine = service.parts.registry._database.engine.execution_options(read_only=True)
    with ExitStack() as opened:
        for _ in range(engine.pool.size()):
            opened.enter_context(engine.connect()).execute(text("SELECT name FROM models")).all()


def mapped_weights(service: Any) -> int:
    return Path("/proc/self/maps").read_text().count(str(service.settings.weights_dir))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_thousand_swaps_leave_nothing_behind(start: Any) -> None:
    service = start(warm_versions=1)
    service.create()
    for number in range(2, 7):
        service.publish("iris", winner=number % 3)
        assert service.parts.refresher.wait_for(1, number, 10)
    live = service.parts.live_models.get("iris")
    numbers = cycle([2, 3, 4, 5, 6])  # more than stay warm, so each is read from its file

    def swap_by_the_registry(times: int) -> None:
        for _ in range(times):
            moved = service.parts.steering.promote("iris", next(numbers), force=True, reason="test", actor="test")
            assert service.parts.refresher.wait_for(1, moved.epoch, 10)
            assert live.predictor().version == moved.live.number

    def swap(times: int) -> None:
        """Without the database's part, which takes most of the time."""
        loader, model = service.parts.refresher._loader, service.parts.registry.model("iris")
        for _ in range(times):
            predictor = loader.load(model, service.parts.registry.version("iris", next(numbers)), live.recent)
            assert live.publish(predictor, live.current.epoch)

    fill_pool(service)
    swap_by_the_registry(SWAPS // 20)
    swap(SWAPS // 20)
    before = resident_kib(), handles(), mapped_weights(service)
    first = live.swaps

    swap(SWAPS - SWAPS // 10)
    swap_by_the_registry(SWAPS // 10)

    memory, files, maps = resident_kib(), handles(), mapped_weights(service)
    assert live.swaps == first + SWAPS
    assert memory <= before[0] * 1.02
    assert files - before[1] == Counter(), "handles that were not open before"
    assert not any("safetensors" in target for target in files)
    assert maps <= before[2]
    assert service.post(PREDICT, json=FEATURES).status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_request_still_holds_goes_when_the_request_has_ended(start: Any) -> None:
    service = start(warm_versions=1)
    service.create()
    service.publish("iris", winner=0)
    assert service.parts.refresher.wait_for(1, 2, 10)
    held = [service.parts.live_models.get("iris").predictor()]
    gone = threading.Event()
    weakref.finalize(held[0], gone.set)
    old = service.parts.registry.version("iris", 2).id
    for number in range(3, 6):
        service.publish("iris", winner=1)
        assert service.parts.refresher.wait_for(1, number, 10)
    assert not gone.is_set()
    assert [answer.label for answer in held[0].predict(held[0].decode_many([b"\0" * 32]))] == ["a"]
    assert old in Path("/proc/self/maps").read_text()

    held.clear()

    assert gone.wait(10)
    gc.collect()
    assert old not in Path("/proc/self/maps").read_text()
