"""Fashion-MNIST from nothing, over HTTP: 10,000 labels posted once each, then all 10,000 test images asked.

The model starts from random weights and without classes. Test images are never posted as samples.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from service import report, service

from app.cli.demo.client import TaughtModel, in_parts
from app.cli.demo.datasets import fashion_mnist

LIMIT = 0.85
NUDGE_SECONDS = 15.0
PATIENCE_SECONDS = 1800.0


def settle(model: TaughtModel) -> None:
    """Wait until no sample waits; ask for an update where samples wait for company that will not come."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    nudged = time.monotonic()
    while time.monotonic() < deadline:
        left = model.unsettled()
        if not left:
            return
        if "claimed" not in left and time.monotonic() - nudged > NUDGE_SECONDS:
            nudged = time.monotonic()
            model.run("no more samples come")
        time.sleep(1.0)
    raise SystemExit("samples still wait after half an hour")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    parser.add_argument("--data-dir", type=Path, default=shared, help="where fashion_mnist.tar or its idx files lie")
    parser.add_argument("--labels", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=250, help="samples a request")
    parser.add_argument("--per-second", type=float, default=0, help="samples a second; 0: as fast as they are taken")
    parser.add_argument("--recipe", default="{}", help="a recipe as JSON")
    arguments = parser.parse_args()
    data = fashion_mnist(arguments.data_dir, taught=arguments.labels)
    with service() as instance, instance.connection(timeout_seconds=300) as connection:
        model = TaughtModel(connection, "fashion")
        recipe = json.loads(arguments.recipe)
        network = {"architecture": "small_cnn"}
        model.create({"input": data.input, "network": network, "recipe": recipe})
        began = time.monotonic()
        for number, batch in enumerate(in_parts(data.taught, arguments.batch)):
            model.teach(batch, [item.label for item in batch], "benchmark")
            if arguments.per_second:
                time.sleep(max(0.0, began + (number + 1) * arguments.batch / arguments.per_second - time.monotonic()))
        posted = time.monotonic() - began
        settle(model)
        taught = time.monotonic() - began
        accuracy = model.accuracy(data.test)
        states = model.states()
        verdicts = [version["verdict"] for version in model.versions(limit=200)]
    found = {
        "labels posted": len(data.taught),
        "recipe": recipe or "default",
        "posting, s": round(posted, 1),
        "until all were settled, s": round(taught, 1),
        "samples": states,
        "versions": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "test images": len(data.test),
        "accuracy": round(accuracy, 4),
    }
    return report("fashion-mnist streamed", found, held=accuracy >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
