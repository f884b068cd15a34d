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

    All three stay when another backbone of the same key comes: only the numbers are new. Without a key the buffers
    alone stay.
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
        self._changing = threading.Lock()
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def seated(
        self,
        key: Hashable | None,
        shapes: Mapping[str, Tensor],
        tensors: Mapping[str, Tensor],
        make: Callable[[Mapping[str, Tensor]], nn.Module],
    ) -> tuple[nn.Module, Seat]:
        """Give a module over buffers that hold `tensors`, and its seat, which is free again when the module is gone.

        `make` builds one over buffers, where no module of that key was left. No key is for modules that may hold more
        than their tensors, worked out of them: none is used again.
        """
        form = _form(shapes)
        seat = self._taken(key, form, shapes)
        free, bare = self._free[form], Seat(seat.buffers)
        try:
            self._copy(seat.buffers, tensors)
            if seat.module is None:
                seat.module = make(seat.buffers).to(self._device)
        except BaseException:
            free.append(bare)
            raise
        module = copy.copy(seat.module)  # its layers and tensors, but gone when nobody holds it
        # A deque's append needs no lock, and the collector may run this anywhere.
        finalize(module, free.append, bare if key is None else seat).atexit = False
        return module, seat

    def free(self, shapes: Mapping[str, Tensor]) -> int:
        """Count the seats of this form that wait to be used."""
        return len(self._free.get(_form(shapes), ()))

    def _taken(self, key: Hashable | None, form: Form, shapes: Mapping[str, Tensor]) -> Seat:
        """Take a free seat, one of that key if there is one; any other loses what was made of its module."""
        with self._changing:
            free = self._free.get(form)
            if free is None:
                free = self._free[form] = deque(
                    (self._made(shapes) for _ in range(self._spare)), maxlen=max(1, self._spare)
                )
            for _ in range(len(free)):
                seat = free.pop()
                if key is not None and seat.key == key:
                    return seat
                free.appendleft(seat)
            seat = free.pop() if free else self._made(shapes)
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
        if self._side is None:
            _fill(buffers, tensors)
            return
        self._side.wait_stream(torch.cuda.current_stream(self._device))  # who held the buffers may still be read
        with torch.cuda.stream(self._side):
            _fill(buffers, tensors)
        self._side.synchronize()


def _form(tensors: Mapping[str, Tensor]) -> Form:
    return tuple((name, tensor.shape, tensor.dtype) for name, tensor in sorted(tensors.items()))


@torch.no_grad()
def _fill(buffers: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name, buffer in buffers.items():
        buffer.copy_(tensors[name], non_blocking=True)
