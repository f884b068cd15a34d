"""Online EWC: each weight is held by how much the line's answers depend on it. Made by the catalog of penalties."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from worker.learning.fisher import fisher
from worker.learning.held_weights import HeldWeights, old_slice
from worker.learning.penalty import Origins, PenaltySettings

_KEY = "ewc:"


class EWC(HeldWeights):
    """λ/2·Σᵢ F̃ᵢ(θᵢ − θᵢ*)² (Kirkpatrick et al. 2017, arXiv 1612.00796; online: Schwarz et al. 2018, 1805.06370).

    θ* are the weights of `anchor`, F the importance gathered so far: F ← γF + F_t after every update. F̃ = F/(1 + ηλF)
    keeps a step of rate η from overshooting θ* where F is large (explicit steps diverge past ηλF = 2: Kutalev, Lapina
    2021, arXiv 2109.10021). Rows that were added since F was measured have none and are free.
    """

    def __init__(
        self,
        network: nn.Module,
        anchor: nn.Module,
        importance: Mapping[str, Tensor],
        settings: PenaltySettings,
        rates: Mapping[str, float],
    ) -> None:
        """`importance` by the parameters' names, of their shape or with fewer rows; `rates` are learning rates η."""
        self.settings = settings
        self._importance = {name: value.detach().clone() for name, value in importance.items()}
        weights: list[nn.Parameter] = []
        anchors: list[Tensor] = []
        roots: list[Tensor] = []
        points = dict(anchor.named_parameters())
        for name, parameter in network.named_parameters():
            point, held = points.get(name), importance.get(name)
            if point is None or held is None or not parameter.requires_grad:
                continue
            old = old_slice(point.detach(), held.shape)
            if old is None or not old.numel() or old_slice(parameter, held.shape) is None:
                continue
            weighted = settings.strength * held.to(parameter.device)
            weights.append(parameter)
            anchors.append(old.to(parameter.device, copy=True))
            roots.append((weighted / (1 + rates.get(name, 0.0) * weighted)).sqrt())
        super().__init__(weights, anchors, roots)

    def consolidated(self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Give γF + F_t, F_t measured on these samples (inputs, rows) with the weights as they are, on the CPU.

        Feed it to the next EWC. Importance of parameters that do not learn stays as it was.
        """
        named = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        measured = fisher(network, named, batches)
        largest = max((float(value.max()) for value in measured.values() if value.numel()), default=0.0)
        result = dict(self._importance)
        for name, value in measured.items():
            fresh = (value / largest if self.settings.normalise and largest > 0 else value).cpu()
            before = self._importance.get(name)
            old = None if before is None else old_slice(fresh, before.shape)
            if before is not None and old is not None:
                old += self.settings.decay * before
            result[name] = fresh
        return result


def ewc(network: nn.Module, origins: Origins, settings: PenaltySettings) -> EWC:
    """Make it with the importance that the learner left in its state; without any it holds nothing yet."""
    return EWC(network, origins.previous, importance_in(origins.state), settings, origins.rates)


def importance_in(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a learner state holds of it."""
    return {key.removeprefix(_KEY): value for key, value in state.items() if key.startswith(_KEY)}


def as_state(importance: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same as part of a learner state."""
    return {f"{_KEY}{name}": value for name, value in importance.items()}
