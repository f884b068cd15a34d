"""How OpenMP begins in our processes. Called by entry points before anything imports torch, which loads OpenMP."""

import os

ONE_EACH = "1"
"""OpenMP threads of each thread that asks for no more. `app/serving/width.py` tells what hangs on it."""

SPINS = "30000"
"""Looks, of some 50 ns each, that a thread takes for the others of its team before it sleeps.

GNU's own number is ten times as many. Where one of the team has lost its core to another process, the others keep
theirs busy for as long as they look, at each layer.
"""


def begin_with_one_thread() -> None:
    """Let each thread compute by itself unless it asks for more; what somebody set stays."""
    os.environ.setdefault("OMP_NUM_THREADS", ONE_EACH)
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
