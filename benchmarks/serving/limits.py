"""What the machine can do without HTTP: a loop over batches in each of some processes, for so many seconds.

Run by the harness with the variables of a trial; prints inputs a second as JSON.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

KINDS = ("decode", "forward", "decode + forward")


def measure(kind: str, seconds: float) -> float:
    """Inputs a second of one loop in this process."""
    import torch  # noqa: PLC0415  only those who measure need wait for it
    from networks import decode, load, pictures, vectors  # noqa: PLC0415
    from system import BATCH, trial_here  # noqa: PLC0415

    trial = trial_here()
    torch.set_num_threads(trial.threads)
    network = load(trial.model, trial.dtype)
    payloads = [(trial.folder / "bodies" / str(number)).read_bytes() for number in range(BATCH)]

    def decoded() -> torch.Tensor:
        if trial.model == "resnet18":
            return pictures([decode(one) for one in payloads], trial.dtype)
        return vectors([json.loads(one)["features"] for one in payloads], trial.dtype)

    batch = decoded()
    steps = {
        "decode": decoded,
        "forward": lambda: network(batch),
        "decode + forward": lambda: network(decoded()).float().softmax(1).max(1),
    }
    step = steps[kind]
    with torch.inference_mode():
        for _ in range(5):
            step()
        print("ready", flush=True)
        sys.stdin.readline()
        started = time.perf_counter()
        for done in itertools.count(1):
            step()
            spent = time.perf_counter() - started
            if spent >= seconds:
                return BATCH * done / spent
    raise AssertionError


def together(kind: str, seconds: float, processes: int) -> float:
    """The sum of so many processes that begin at once."""
    command = [sys.executable, __file__, kind, str(seconds)]
    loops = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    try:
        for loop in loops:
            assert loop.stdout is not None
            loop.stdout.readline()
        for loop in loops:
            assert loop.stdin is not None
            loop.stdin.write("go\n")
            loop.stdin.flush()
        return sum(json.loads(loop.communicate(timeout=seconds + 60)[0]) for loop in loops)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main() -> int:
    kind, seconds = sys.argv[1], float(sys.argv[2])
    if len(sys.argv) > 3:
        print(json.dumps(together(kind, seconds, int(sys.argv[3]))))
    else:
        print(json.dumps(measure(kind, seconds)))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parent))
    sys.exit(main())
