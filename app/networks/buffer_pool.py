"""Memory of an accelerator that is taken once and then used again: a seat holds one backbone's numbers at a time.

Called by the VersionLoader where the device is not the CPU. Weights are copied in on a stream of their own, so no
prediction waits for them. Knows nothing of versions.
"""

import copy
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn

Form = tuple[tuple[str, torch.Size, torch.dtype], ...]
"""Names, shapes and dtypes: backbones of one form can have each other's buffers."""


@dataclass(eq=False)
class Seat:
    """Buffers, the module that reads them, and what was made of that module by those who run it.

    All three stay when another backbone of the same key comes: only the numbers are new.
    """

    buffers: dict[str, Tensor]
    key: Hashable = None
    module: nn.Module | None = None
    made: dict[str, Any] = field(default_factory=dict)


class BufferPool:
    """Seats by form. Safe to call from several threads.

    `spare` seats of each form are kept ready for those that follow; a burst beyond is given memory that it frees.
    """

    def __init__(self, device: torch.device, *, spare: int) -> None:
        self._device = device
        self._spare = spare
        self._free: dict[Form, deque[Seat]] = {}
        self._adding = threading.Lock()

    def seated(
        self,
        key: Hashable,
        shapes: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        make: Callable[[Mapping[str, Tensor]], nn.Module],
    ) -> tuple[nn.Module, Seat]:
        """Give a module over buffers that hold `tensors`, and its seat, which is free again when the module is gone.

        `make` builds one over buffers, where no module of that key was left.
        """
        seat = self._taken(key, _form(shapes), shapes)
        self._copy(seat.buffers, tensors)
        if seat.module is None:
            seat.module = make(seat.buffers).to(self._device)
        module = copy.copy(seat.module)  # its layers and tensors, but gone when nobody holds it
        # A deque's append needs no lock, and the collector may run this anywhere.
        finalize(module, self._free[_form(shapes)].append, seat).atexit = False
        return module, seat

    def free(self, shapes: Mapping[str, Tensor]) -> int:
        """Count the seats of this form that wait to be used."""
        return len(self._free.get(_form(shapes), ()))

    def _taken(self, key: Hashable, form: Form, shapes: Mapping[str, Tensor]) -> Seat:
        """Take a free seat, one of that key if there is one; any other loses what was made of its module."""
        with self._adding:
            free = self._free.get(form)
            if free is None:
                free = self._free[form] = deque(
                    (self._made(shapes) for _ in range(self._spare)), maxlen=max(1, self._spare)
                )
            for _ in range(len(free)):
                seat = free.pop()
                if seat.key == key:
                    return seat
                free.appendleft(seat)
        try:
            seat = free.pop()
        except IndexError:
            seat = self._made(shapes)
        return Seat(seat.buffers, key)

    def _made(self, shapes: Mapping[str, Tensor]) -> Seat:
        buffers = {
            name: torch.empty(
                shape.shape,
                dtype=shape.dtype,
                device=self._device,
                memory_format=torch.channels_last if shape.dim() == 4 else torch.contiguous_format,  # as pictures are
            )
            for name, shape in shapes.items()
        }
        return Seat(buffers)

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
