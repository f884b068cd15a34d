"""How many batches run at a time, and how a thread gets more cores than the others.

Asked by the composition root; what it makes is called by the thread that runs what comes alone. Knows nothing of
batches.

GNU's OpenMP counts the threads that all teams of the process have. Once they outnumber the cores, threads of a team no
longer spin while they wait for one another but sleep, at each layer: a pass of ResNet-18 over two cores then takes
5.1 ms instead of 2.6, and 3.9 with one. Whatever runs before anybody has told torch how many threads it may use
(imports, threads of other libraries) makes such a team, unless the process began with one thread each.
So entry points begin with one thread each (`app/openmp.py`).
"""

import os
import threading
from collections.abc import Callable

import torch

from app.openmp import ONE_EACH

INFERENCE_THREADS = 4  # at most
ON_A_DEVICE = 2  # one computes while the other brings what comes next
DECODING_THREADS = 2, 8  # at least and at most


def inference_threads(torch_threads: int, processes: int, device: torch.device) -> int:
    """Say how many batches run at a time: as many as there are cores for, shared among the serving processes.

    On a device beside the processor more would only cut what waits into smaller batches.
    """
    if device.type != "cpu":
        return ON_A_DEVICE
    return max(1, min(INFERENCE_THREADS, _cores() // (torch_threads * processes)))


def decoding_threads(processes: int) -> int:
    """Say how many threads decode: half of the cores, shared among the serving processes, within bounds."""
    least, most = DECODING_THREADS
    return max(least, min(most, _cores() // (2 * processes)))


def widening(threads: int, all_threads: int, device: torch.device) -> Callable[[], None] | None:
    """Give what a thread calls to have `all_threads` torch threads; None where that is no more than `threads`.

    None, too, where this process began with more than one OpenMP thread, as a wide pass would only take longer, and
    where another device than the processor computes.
    """
    if device.type != "cpu":
        return None
    if all_threads <= threads or os.environ.get("OMP_NUM_THREADS") != ONE_EACH:
        return None

    def widen() -> None:
        torch.get_num_threads()  # torch gives each thread the common number at its first look: have that behind us
        torch.set_num_threads(all_threads)  # of this thread, and of all threads that come …
        restoring = threading.Thread(target=torch.set_num_threads, args=(threads,))  # … which is taken back
        restoring.start()
        restoring.join()

    return widen


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
