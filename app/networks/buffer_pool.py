"""Memory of an accelerator that is taken once and then used again: each set of buffers holds one backbone's numbers.

Called by the VersionLoader where the device is not the CPU. Weights are copied in on a stream of their own, so no
prediction waits for them. Knows nothing of versions.
"""

import threading
from collections import deque
from collections.abc import Mapping
from weakref import finalize

import torch
from torch import Tensor, nn

Form = tuple[tuple[str, torch.Size, torch.dtype], ...]
"""Names, shapes and dtypes: backbones of one form can have each other's buffers."""


class BufferPool:
    """Sets of buffers by form. Safe to call from several threads.

    `spare` sets of each form are kept ready for those that follow; a burst beyond is given memory that it frees.
    """

    def __init__(self, device: torch.device, *, spare: int) -> None:
        self._device = device
        self._spare = spare
        self._free: dict[Form, deque[dict[str, Tensor]]] = {}
        self._adding = threading.Lock()

    def taken(self, shapes: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Give buffers on the device that hold `tensors`, to be given back by `returned_with`."""
        form = _form(shapes)
        with self._adding:
            free = self._free.get(form)
            if free is None:
                free = self._free[form] = deque(
                    (self._made(shapes) for _ in range(self._spare)), maxlen=max(1, self._spare)
                )
        try:
            buffers = free.pop()
        except IndexError:
            buffers = self._made(shapes)
        self._copy(buffers, tensors)
        return buffers

    def returned_with(self, module: nn.Module, buffers: dict[str, Tensor]) -> None:
        """Have the buffers back when the module is gone; a full pool lets them go instead."""
        # A deque's append needs no lock, and the collector may run this anywhere.
        finalize(module, self._free[_form(buffers)].append, buffers).atexit = False

    def free(self, shapes: Mapping[str, Tensor]) -> int:
        """Count the sets of this form that wait to be used."""
        form = _form(shapes)
        return len(self._free.get(form, ()))

    def _made(self, shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: torch.empty(
                shape.shape,
                dtype=shape.dtype,
                device=self._device,
                memory_format=torch.channels_last if shape.dim() == 4 else torch.contiguous_format,  # as pictures are
            )
            for name, shape in shapes.items()
        }

    def _copy(self, buffers: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        """Return when all is copied; on CUDA by a stream that only waits for what was queued before."""
        if self._device.type != "cuda":
            _fill(buffers, tensors)
            return
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self._device))  # who held the buffers before may still be read
        with torch.cuda.stream(side):
            _fill(buffers, tensors)
        side.synchronize()


def _form(tensors: Mapping[str, Tensor]) -> Form:
    return tuple((name, tensor.shape, tensor.dtype) for name, tensor in sorted(tensors.items()))


@torch.no_grad()
def _fill(buffers: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name, buffer in buffers.items():
        buffer.copy_(tensors[name], non_blocking=True)
