"""The weights that learn, laid end to end: θ as the formulas write it.

Made by `optimizers`, used by the stepper and by what acts on every weight in every step. An optimizer's move, a pull
towards old weights, the norm of a gradient and a running average are a kernel or two each of one long vector; one for
each of a network's tensors costs a small network more than its own passes.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """Where a parameter lies."""

    vector: int
    start: int
    stop: int
    shape: torch.Size

    def of(self, vector: Tensor) -> Tensor:
        """The part of a vector that belongs to the parameter, in its shape; not copied."""
        return vector[self.start : self.stop].view(self.shape)


class WeightVectors:
    """A vector for each kind of weight, and one of the same length for its gradient.

    From the beginning until `release` each parameter is a view of its vector, so whichever is changed, both are.
    """

    def __init__(self, named: Mapping[str, nn.Parameter], kinds: Mapping[str, Hashable] | None = None) -> None:
        """Lay these end to end; `kinds`, by name, are what may not share a vector (learning rates)."""
        kinds = kinds or {}
        together: dict[Hashable, list[str]] = {}
        for name, parameter in named.items():
            together.setdefault((kinds.get(name), parameter.dtype, parameter.device), []).append(name)
        self.names = list(together.values())
        """The parameters of each vector, in their order."""
        self.vectors = [torch.cat([named[name].detach().reshape(-1) for name in names]) for names in self.names]
        self.gradients = [torch.zeros_like(vector) for vector in self.vectors]
        self._rows = [[named[name] for name in names] for names in self.names]
        self.places: dict[str, Place] = {}
        for number, (names, vector) in enumerate(zip(self.names, self.vectors, strict=True)):
            start = 0
            for name in names:
                parameter = named[name]
                place = Place(number, start, start + parameter.numel(), parameter.shape)
                self.places[name], start = place, place.stop
                parameter.data = place.of(vector)
        self.place_of = {parameter: self.places[name] for name, parameter in named.items()}

    def clear(self) -> None:
        """Forget the parameters' gradients."""
        for parameters in self._rows:
            for parameter in parameters:
                parameter.grad = None

    def gather(self) -> None:
        """Move the parameters' gradients into `gradients`; of one that the loss did not reach they are zeros."""
        for parameters, gradient in zip(self._rows, self.gradients, strict=True):
            torch.cat([_flat(parameter) for parameter in parameters], out=gradient)
        self.clear()

    def clip(self, most: float) -> float:
        """Shorten the gradient to this norm and give the norm it had."""
        norms = [torch.linalg.vector_norm(gradient) for gradient in self.gradients]
        norm = float(norms[0] if len(norms) == 1 else torch.stack([one.to(norms[0]) for one in norms]).norm())
        if norm > most:
            for gradient in self.gradients:
                gradient.mul_(most / norm)
        return norm

    def release(self) -> None:
        """Give each parameter memory of its own again: what holds a network needs no vectors."""
        for parameters in self._rows:
            for parameter in parameters:
                parameter.data = parameter.data.clone()


def _flat(parameter: nn.Parameter) -> Tensor:
    gradient = parameter.grad
    if gradient is None:
        return torch.zeros(parameter.numel(), dtype=parameter.dtype, device=parameter.device)
    return (gradient.to_dense() if gradient.is_sparse else gradient).reshape(-1)
