"""River's adaptive random forest over one stream, test then train, in a process of its own.

    python forest.py <stream> <folder> <seed>

Started by `streams.py`; needs river, the folder's files and nothing of the product. One JSON object on stdout.
Source: Gomes et al. 2017, "Adaptive random forests for evolving data stream classification"; defaults, 10 trees.
"""

import json
import sys
import time
from pathlib import Path

import tables
from river import forest


def main() -> int:
    name, folder, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    rows, labels = tables.read(name, folder)
    model = forest.ARFClassifier(seed=seed)
    right, began = 0, time.monotonic()
    for row, label in zip(rows, labels, strict=True):
        named = dict(enumerate(row))
        right += model.predict_one(named) == label
        model.learn_one(named, label)
    print(json.dumps({"accuracy": right / len(labels), "seconds": time.monotonic() - began}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
