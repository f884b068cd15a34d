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

    From the beginning until `release` each parameter is a view of its vector, and its `grad` one of the vector's
    gradient, which backward passes add to. So a parameter that a loss does not reach has a gradient of zeros, and what
    acts on weights whatever the loss says (decay, penalties, momentum) acts on it too.
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
        self._parameters = list(named.values())
        self.places: dict[str, Place] = {}
        for number, (names, vector) in enumerate(zip(self.names, self.vectors, strict=True)):
            start = 0
            for name in names:
                parameter = named[name]
                place = Place(number, start, start + parameter.numel(), parameter.shape)
                self.places[name], start = place, place.stop
                parameter.data, parameter.grad = place.of(vector), place.of(self.gradients[number])
        self.place_of = {parameter: self.places[name] for name, parameter in named.items()}

    def clear(self) -> None:
        """Make the gradient zero, for the next backward pass."""
        for gradient in self.gradients:
            gradient.zero_()

    def clip(self, most: float) -> float:
        """Shorten the gradient to this norm and give the norm it had."""
        norms = [torch.linalg.vector_norm(gradient) for gradient in self.gradients]
        norm = float(norms[0] if len(norms) == 1 else torch.stack([one.to(norms[0]) for one in norms]).norm())
        if norm > most:
            for gradient in self.gradients:
                gradient.mul_(most / norm)
        return norm

    def release(self) -> None:
        """Give each parameter memory of its own again, and no gradient: what holds a network needs no vectors."""
        for parameter in self._parameters:
            parameter.data, parameter.grad = parameter.data.clone(), None
