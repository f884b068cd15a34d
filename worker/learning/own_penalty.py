"""A loss of the user's own as a penalty. Made by the catalog of penalties."""

from torch import Tensor, nn

from worker.learning.failure import LearningFailed
from worker.learning.penalty import Origins, OwnLoss, PenaltySettings, Step


class OwnPenalty:
    """strength·loss(module, step); whatever it returns must be one number that has a gradient."""

    def __init__(self, network: nn.Module, loss: OwnLoss, strength: float, name: str) -> None:
        self._network, self._loss, self._strength, self._name = network, loss, strength, name

    def __call__(self, step: Step) -> Tensor:
        try:
            value = self._loss(self._network, step)
        except Exception as error:
            raise LearningFailed(
                f"penalties: the loss {self._name!r} failed: {error!r}. Correct the builder."
            ) from error
        if not isinstance(value, Tensor) or value.numel() != 1:
            what = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise LearningFailed(
                f"penalties: the loss {self._name!r} gave {what}; expected a tensor with one number. "
                "Correct the builder."
            )
        return self._strength * value.reshape(())


def own_penalty(network: nn.Module, origins: Origins, settings: PenaltySettings) -> OwnPenalty:
    """Make it from the losses the learner was given; LearningFailed lists them where the name is none of them."""
    if settings.name not in origins.own:
        known = ", ".join(map(repr, origins.own)) or "none"
        raise LearningFailed(
            f"penalties: there is no loss {settings.name!r}; the builder's `penalties` has {known}. Add it there, or "
            "take it out of the recipe."
        )
    return OwnPenalty(network, origins.own[settings.name], settings.strength, settings.name)
