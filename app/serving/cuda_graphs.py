"""A backbone on CUDA as recorded graphs, one for each of a few batch sizes: a batch is padded up to the next.

Made by Execution, for the device it stands on. Knows nothing of networks' heads or of versions.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SIZES = (1, 2, 4, 8, 16, 32, 64)
_WARM_UPS = 3  # before a recording: libraries choose their kernels in the first runs


@dataclass(frozen=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: Tensor  # what a replay reads
    features: Tensor  # what it writes


class CudaGraphs:
    """Inputs come from pinned memory over a stream of their own; answers go before whatever else this process computes.

    A graph for a size is recorded when a batch first needs it, which the warm-up does before the version is served.
    Safe to call from several threads: copies run beside each other, replays one after the other.
    """

    def __init__(self, backbone: nn.Module, device: torch.device) -> None:
        self._backbone = backbone
        self._device = device
        self._computing = _stream(device, priority=-1)  # less is sooner; 0, the default, comes last
        self._using = threading.Lock()
        self._recorded: dict[int, _Recorded] = {}

    def __call__(self, stacked: Tensor, normalised: Callable[[Tensor], Tensor]) -> Tensor:
        """Map a batch in main memory to float32 features on the device, computed when this returns."""
        parts = [self._run(part, normalised) for part in torch.split(stacked, SIZES[-1])]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _run(self, stacked: Tensor, normalised: Callable[[Tensor], Tensor]) -> Tensor:
        copying = _stream(self._device)
        with torch.cuda.stream(copying):
            inputs = normalised(stacked.pin_memory().to(self._device, non_blocking=True))
        with self._using, torch.cuda.stream(self._computing):
            size = next(size for size in SIZES if size >= len(inputs))
            recorded = self._recorded.get(size)
            if recorded is None:
                copying.synchronize()
                recorded = self._recorded[size] = self._record(inputs, size)
            self._computing.wait_stream(copying)
            inputs.record_stream(self._computing)
            recorded.inputs[: len(inputs)].copy_(inputs)
            recorded.graph.replay()
            features = recorded.features[: len(inputs)].float().clone()
            self._computing.synchronize()
        return features

    def _record(self, inputs: Tensor, size: int) -> _Recorded:
        held = inputs.new_zeros((size, *inputs.shape[1:]))
        if held.dim() == 4:
            held = held.contiguous(memory_format=torch.channels_last)
        for _ in range(_WARM_UPS):
            self._backbone(held)
        self._computing.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._computing, capture_error_mode="thread_local"):
            features = self._backbone(held)
        return _Recorded(graph, held, features)


def _stream(device: torch.device, priority: int = 0) -> torch.cuda.Stream:
    make: Callable[..., torch.cuda.Stream] = torch.cuda.Stream
    return make(device, priority=priority)
