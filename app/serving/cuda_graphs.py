"""A backbone on CUDA as recorded graphs, one for each of a few batch sizes: a batch is padded up to the next.

Made by Execution, for the device it stands on. Knows nothing of networks' heads or of versions.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from app.log import get_logger
from app.networks.backbone import FAILURES

log = get_logger(__name__)

Run = Callable[[Tensor], Tensor]
"""Maps a normalised float32 batch to float32 features."""

SIZES = (1, 2, 4, 8, 16, 32, 64)


class CudaLane:
    """What the backbones on one device share: its streams, the turn to compute, and the memory that graphs work in.

    Inputs come from pinned memory over a stream of their own, and what is tried and recorded has its own, too. Answers
    are computed one after the other, before whatever else this process computes; so graphs can share their memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.turn = threading.Lock()
        self.computing = _stream(device, priority=-1)  # less is sooner; 0, the default, comes last
        self._copying = _stream(device)
        self._trying = _stream(device)
        # What a library takes for a stream is written into the graphs recorded on it, so nothing else may run there.
        self._recording = _stream(device)
        self._recorder = threading.Lock()
        self._memory = torch.cuda.graph_pool_handle()
        self._anchor = torch.cuda.CUDAGraph()  # memory that no graph uses any more cannot be used again
        with torch.cuda.stream(self._recording):
            numbers = torch.ones(1, device=device)
            self._anchor.capture_begin(pool=self._memory, capture_error_mode="thread_local")
            self._held = numbers + 1
            self._anchor.capture_end()

    def brought(self, stacked: Tensor, normalised: Run) -> Tensor:
        """Give a batch in main memory as a network on the device takes it; it is there when this returns."""
        with torch.cuda.stream(self._copying):
            inputs = normalised(stacked.pin_memory().to(self.device, non_blocking=True))
            done = self._copying.record_event()
        done.synchronize()
        return inputs

    def recorded(self, network: Run, form: Tensor, size: int) -> "Recorded | None":
        """Record the network on so many inputs like those of `form`; None where it cannot be recorded.

        Others compute meanwhile. Raises what the network raises.
        """
        with self._recorder:
            self._trying.wait_stream(torch.cuda.current_stream(self.device))  # which may still write the weights
            with torch.cuda.stream(self._trying):
                inputs = form.new_zeros((size, *form.shape[1:]))
                if inputs.dim() == 4:
                    inputs = inputs.contiguous(memory_format=torch.channels_last)
                network(inputs)  # libraries choose and load their kernels in a first run
                self._trying.synchronize()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.stream(self._recording):
                    # Not torch's own context manager: it waits for all that the device does, and frees memory.
                    graph.capture_begin(pool=self._memory, capture_error_mode="thread_local")
                    try:
                        features = network(inputs)
                    finally:
                        graph.capture_end()
            except FAILURES as error:  # a step that waits for the device, say, or looks at numbers
                log.info("network not recorded", error=f"{type(error).__name__}: {error}"[:200])
                return None
        return Recorded(graph, inputs, features)


@dataclass(frozen=True)
class Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: Tensor  # what a replay reads
    features: Tensor  # what it writes


class CudaGraphs:
    """Runs a network by graphs. Safe to call from several threads.

    A batch takes the smallest graph that is there and holds it; where none does, one is recorded of the next size.
    A network that cannot be recorded is run as it stands.
    """

    def __init__(self, network: Run, lane: CudaLane) -> None:
        self._network = network
        self._lane = lane
        self._recorded: dict[int, Recorded] = {}
        self._recordable = True
        self._recording = threading.Lock()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Map a batch on the device to float32 features, computed when this returns."""
        parts = [self._run(part) for part in torch.split(inputs, SIZES[-1])]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def record(self, size: int, form: Tensor) -> Recorded | None:
        """Have a graph of one of `SIZES`; `form` is a batch of any size. None where it cannot be recorded."""
        with self._recording:
            if size not in self._recorded and self._recordable:
                recorded = self._lane.recorded(self._network, form, size)
                if recorded is None:
                    self._recordable = False
                else:
                    self._recorded[size] = recorded
            return self._recorded.get(size)

    def _run(self, inputs: Tensor) -> Tensor:
        count = len(inputs)
        fitting = [size for size in SIZES if size >= count]
        recorded = next((self._recorded[size] for size in fitting if size in self._recorded), None)
        if recorded is None:
            recorded = self.record(fitting[0], inputs)
        lane = self._lane
        lane.computing.wait_stream(torch.cuda.current_stream(lane.device))
        with lane.turn, torch.cuda.stream(lane.computing):
            if recorded is None:
                features = self._network(inputs)
            else:
                recorded.inputs[:count].copy_(inputs)
                recorded.graph.replay()
                features = recorded.features[:count].clone()
            features = features.float()
            lane.computing.synchronize()
        return features


def _stream(device: torch.device, priority: int = 0) -> torch.cuda.Stream:
    make: Callable[..., torch.cuda.Stream] = torch.cuda.Stream
    return make(device, priority=priority)
