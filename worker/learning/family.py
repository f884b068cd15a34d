"""Learning layers that several heads share: one backbone, a head for each member of a family, a loss for each head.

Called by the family's slow lane. Members are numbered; whose they are, and what their rows mean, is not known here.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from worker.learning.learner import Learned, Learner
from worker.learning.optimizers import State
from worker.learning.penalty import OwnLoss, PenaltySettings, Step
from worker.learning.samples import Samples
from worker.learning.settings import LearnerSettings

DISTILLATION = "features of the family"


@dataclass(frozen=True)
class Member:
    """A head, a module from features to (batch, rows), and its samples, whose targets are rows of this head."""

    head: nn.Module
    rows: int
    samples: Samples


class SharedNetwork(nn.Module):
    """Maps a batch to the logits of all heads side by side, (batch, all rows), in one pass through the backbone."""

    def __init__(self, backbone: nn.Module, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = _SideBySide(heads)
        self.made: Tensor | None = None  # features of the newest batch (batch, width), for who compares them

    def forward(self, inputs: Tensor) -> Tensor:
        self.made = self.backbone(inputs)
        logits: Tensor = self.head(self.made)
        return logits


class _SideBySide(nn.Module):
    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.each = nn.ModuleList(heads)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([head(features) for head in self.each], dim=1)


class FeatureDistillation:
    """‖f(x) − f_old(x)‖² / ‖f_old(x)‖² over a batch: every head, taught or not, finds the features it was made for.

    Learning without forgetting on the shared layers' outputs instead of the answers (Li, Hoiem 2016, arXiv 1606.09282;
    on features as in FitNets: Romero et al. 2015, arXiv 1412.6550). The quotient makes a strength mean the same
    whatever the features' scale and width.
    """

    def __init__(self, old: nn.Module) -> None:
        """`old` is copied; it must be on the device of the inputs that will come."""
        self._old = copy.deepcopy(old).eval().requires_grad_(False)

    def __call__(self, module: nn.Module, step: Step) -> Tensor:
        if not isinstance(module, SharedNetwork) or module.made is None:
            raise TypeError("only a SharedNetwork tells the features it made")
        with torch.no_grad():
            before: Tensor = self._old(step.inputs)  # (batch, width)
        scale = before.square().sum().clamp_min(torch.finfo(before.dtype).tiny)
        return (module.made - before).square().sum() / scale


def learn_family(
    backbone: nn.Module,
    members: Sequence[Member],
    settings: LearnerSettings,
    *,
    distillation: float = 1.0,
    pretrained: nn.Module | None = None,
    state: State | None = None,
    device: torch.device | str = "cpu",
    should_stop: Callable[[], bool] = lambda: False,
) -> Learned:
    """Learn the shared layers from all members' samples: Σ_m CE_m + distillation · FeatureDistillation + penalties.

    Each sample is compared with the rows of its own head only. The answer's network is a `SharedNetwork`; its heads
    have learned along and are as a rule thrown away. What is passed in stays as it was. `pretrained` is the backbone
    before any learning. Of the learner state only what is of the backbone goes on: heads may stand in another order
    next time. Raises what the learner raises.
    """
    network = SharedNetwork(copy.deepcopy(backbone), [copy.deepcopy(member.head) for member in members])
    rows = [member.rows for member in members]
    own: Mapping[str, OwnLoss] = {}
    if distillation > 0:
        own = {DISTILLATION: FeatureDistillation(copy.deepcopy(backbone).to(device))}
        distils = PenaltySettings("own", distillation, name=DISTILLATION)
        settings = replace(settings, penalties=(*settings.penalties, distils))
    learned = Learner(settings, device, own).learn(
        network,
        new=_together(members),
        pretrained=None if pretrained is None else SharedNetwork(pretrained, [member.head for member in members]),
        state=state,
        groups=torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows)),
        should_stop=should_stop,
    )
    assert isinstance(learned.network, SharedNetwork)
    learned.network.made = None  # it keeps a whole batch's activations alive
    return replace(learned, state={name: value for name, value in learned.state.items() if "/head." not in name})


def _together(members: Sequence[Member]) -> Samples:
    """All members' samples, their targets moved to where the rows of their head stand."""
    samples, first = members[0].samples, members[0].rows
    for member in members[1:]:
        samples = samples.followed_by(replace(member.samples, targets=member.samples.targets + first))
        first += member.rows
    return samples
