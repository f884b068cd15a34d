"""How many samples a second one client can hand over: NDJSON over HTTP, SQLite with durable commits.

Learning is paused, so the figure is that of intake alone; all samples differ, so none is a duplicate.
"""

import argparse
import json
import sys
import time

import numpy as np
from service import report, service

LIMIT = 1000.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=64, help="numbers a sample")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (arguments.samples, arguments.size))
    labels = rng.integers(0, 10, arguments.samples)
    body = "".join(
        json.dumps({"id": f"row-{number}", "features": row.tolist(), "label": str(label)}) + "\n"
        for number, (row, label) in enumerate(zip(rows, labels, strict=True))
    ).encode()
    with service() as instance, instance.connection(timeout_seconds=600) as connection:
        model = {
            "name": "intake",
            "input": {"kind": "features", "size": arguments.size},
            "labels": [str(label) for label in range(10)],
        }
        connection.post("/v1/models", model)
        connection.post("/v1/models/intake/learning/pause", {"reason": "intake alone is measured"})
        began = time.perf_counter()
        answer = connection.ask(
            "POST", "/v1/models/intake/samples", content=body, headers={"Content-Type": "application/x-ndjson"}
        )
        seconds = time.perf_counter() - began
        queued = connection.get("/v1/models/intake")["queue"]["queued"]
    rate = answer["accepted"] / seconds
    found = {
        "samples": arguments.samples,
        "accepted": answer["accepted"],
        "in the queue": queued,
        "MB": round(len(body) / 1e6, 1),
        "seconds": round(seconds, 2),
        "samples/s": round(rate),
    }
    whole = answer["accepted"] == queued == arguments.samples
    return report("intake", found, held=whole and rate >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
