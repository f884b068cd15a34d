"""Teach a stream once through, with a buffer beside it: the product's steps, losses and running average.

Called by the protocols that rehearse. Each incoming batch makes one step together with a draw from the buffer and is
then offered to the buffer; no sample of the stream comes twice except out of the buffer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from buffer import Buffer, Remembered
from experiences import Experience
from pictures import ready
from torch import Tensor, nn

from worker.learning.augmentation import AugmentationSettings, augmented
from worker.learning.averaging import AveragedWeights
from worker.learning.optimizers import OptimizerSettings, make_optimizer
from worker.learning.settings import RehearsalSettings
from worker.learning.stepper import Batch, Stepper

_REVIEW_BATCH = 64


@dataclass(frozen=True)
class Rehearsing:
    """How to teach. Without `memory` nothing is rehearsed."""

    lr: float
    batch: int
    memory: int = 0
    replayed: int = 0  # samples of each draw from the buffer
    kind: str = "er"
    alpha: float = 0.5
    beta: float = 0.5
    balanced: bool = False
    averaging: float = 0.0  # decay of the running average that is asked in the end; 0: the last weights
    shift: int = 0  # pixels by which a picture is moved at random, at most, whenever a step uses it
    mirror: bool = False  # and whether half of the pictures are mirrored
    review: int = 0  # steps on the buffer alone when the stream has ended, the rate falling to 0 along a cosine


def rehearse(
    network: nn.Module, experiences: Sequence[Experience], how: Rehearsing, generator: torch.Generator
) -> Buffer | None:
    """Teach the experiences one after the other; give the buffer as it is in the end."""
    optimizer = make_optimizer(dict(network.named_parameters()), OptimizerSettings("sgd", lr=how.lr, momentum=0.0))
    stepper = Stepper(network, optimizer, rehearsal=RehearsalSettings(how.kind, how.alpha, how.beta))
    average = AveragedWeights(optimizer.weights.vectors, how.averaging) if how.averaging else None
    buffer = Buffer(how.memory, generator, balanced=how.balanced) if how.memory else None

    def step(new: Batch | None, memory: Sequence[Batch] = ()) -> None:
        stepper.step(new, memory)
        if average is not None:
            average.follow()

    def prepared(remembered: Remembered) -> Batch:
        return Batch(_varied(remembered.inputs, how, generator), remembered.targets, remembered.logits)

    for experience in experiences:
        for inputs, targets in experience.batches(how.batch):
            draws = []
            if buffer is not None and len(buffer):
                draws = [prepared(buffer.draw(how.replayed)) for _ in range(stepper.draws)]
            step(Batch(_varied(inputs, how, generator), targets), draws)
            if buffer is not None:
                buffer.add(inputs, targets, stepper.new_logits if how.kind == "der_pp" else None)
    for number in range(how.review if buffer is not None else 0):
        optimizer.rates[0] = how.lr * (1 + math.cos(math.pi * number / how.review)) / 2
        step(None, [prepared(buffer.draw(_REVIEW_BATCH)) for _ in range(stepper.draws)])
    if average is not None:
        average.settle()
    return buffer


def _varied(inputs: Tensor, how: Rehearsing, generator: torch.Generator) -> Tensor:
    """Bytes (n, 784) made ready, each picture moved and mirrored by chance."""
    pictures = ready(inputs)
    changed = augmented(pictures.view(-1, 1, 28, 28), AugmentationSettings(how.shift, how.mirror), generator)
    return changed.flatten(1)
