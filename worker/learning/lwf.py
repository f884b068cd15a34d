"""Learning without forgetting: the answers of the version before are kept. Made by the catalog of penalties."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.learning.penalty import Origins, PenaltySettings, Step


class LwF:
    """strength·T²·KL(σ(z_old/T) ‖ σ(z/T)) on the samples of the step (Li, Hoiem 2016, arXiv 1606.09282).

    z_old are what `teacher` answers to the same inputs in eval mode; only the rows it has are compared, so rows that
    came later are free. The strength stands beside a cross-entropy of weight 1; van de Ven's (1/n)·CE + (1 − 1/n)·KL
    with n classes (Nature Machine Intelligence 2022) is, but for the rate, strength n − 1.
    """

    def __init__(self, teacher: nn.Module, strength: float = 1.0, temperature: float = 2.0) -> None:
        """The teacher is copied; it must be on the device of the inputs that will come."""
        self._teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
        self._strength, self._temperature = strength, temperature

    def __call__(self, step: Step) -> Tensor:
        with torch.no_grad():
            answers: Tensor = self._teacher(step.inputs)  # (batch, old rows)
        if answers.shape[1] < 2:
            return step.logits.new_zeros(())
        before = functional.log_softmax(answers / self._temperature, dim=1)
        now = functional.log_softmax(step.logits[:, : answers.shape[1]] / self._temperature, dim=1)
        distance = functional.kl_div(now, before, reduction="batchmean", log_target=True)
        return self._strength * self._temperature**2 * distance.clamp_min(0)  # a rounding may fall below


def lwf(network: nn.Module, origins: Origins, settings: PenaltySettings) -> LwF:
    """Make it with the network the update started from as the teacher."""
    teacher = copy.deepcopy(origins.previous).to(next(network.parameters()).device)
    return LwF(teacher, settings.strength, settings.temperature)
