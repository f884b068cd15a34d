"""Growing a network by labels: new rows under the old ones, which do not move by a bit.

Called by the worker before it learns. Order is by arrival alone: a label's name and id never decide its place.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from app.networks.head import Head
from app.networks.network import Network

_FIRST_NORM = 3**-0.5
"""Length of a row before any was learned: what rows drawn uniformly in ±1/√width have on average."""


@torch.no_grad()
def grow(
    network: Network, label_ids: Sequence[int], features: Tensor | None = None, targets: Tensor | None = None
) -> Network:
    """Give a new network with rows for `label_ids` appended in the order given; labels it has are skipped.

    `features` (n, head_width) and `targets` (n,), label ids, are samples of new and perhaps old labels. A new label
    among them starts from their mean; one without samples starts from its own small random row. The network
    passed in is left as it was, and shares no memory with the new one.
    """
    spec = network.spec.grown(tuple(label_ids))
    new = spec.labels[len(network.spec.labels) :]
    head = Head(network.head_width, spec.labels, spec.seed).to(network.head.weight.device)
    old = len(network.spec.labels)
    head.weight[:old] = network.head.weight
    head.bias[:old] = network.head.bias
    if features is not None and targets is not None and len(features):
        for row, label_id in enumerate(new, start=old):
            imprinted = _imprint(network.head, features, targets, label_id)
            if imprinted is not None:
                head.weight[row], head.bias[row] = imprinted
    grown = Network(spec, copy.deepcopy(network.backbone), head, network.width)
    for before, after in zip(network.head.parameters(), head.parameters(), strict=True):
        after.requires_grad_(before.requires_grad)
    return grown.train(network.training)


def _imprint(head: Head, features: Tensor, targets: Tensor, label_id: int) -> tuple[Tensor, Tensor] | None:
    """Make a row from the label's mean feature (Qi, Brown, Lowe 2018, arXiv 1712.07136), or None without samples.

    The paper's features are of unit length. Ours are not, so the mean of the other labels is taken off first,
    w = ν·(m_c − m)/‖m_c − m‖ with ν the mean length of the old rows, and the bias puts the boundary halfway:
    with g(x) = max_old(x) − w·x, b = (mean of g over the label + mean of g over the others)/2. Before there is
    any row, max_old is left out and the boundary stands halfway between m_c and m, as for nearest means.
    """
    own = features[targets == label_id]
    if not len(own):
        return None
    mean = own.mean(0)
    others = [features[targets == other].mean(0) for other in torch.unique(targets) if int(other) != label_id]
    centre = torch.stack(others).mean(0) if others else torch.zeros_like(mean)
    direction = mean - centre
    length = direction.norm()
    if not float(length) > 0:
        return None
    norm = head.weight.norm(dim=1).mean() if len(head.weight) else torch.tensor(_FIRST_NORM)
    weight = direction / length * norm.to(direction.device)  # (width,)
    if not len(head.weight):
        return weight, -(weight @ (mean + centre)) / 2
    gap = _best(head, features) - features @ weight  # (n,)
    inside = gap[targets == label_id].mean()
    return weight, (inside + gap[targets != label_id].mean()) / 2 if others else inside


def _best(head: nn.Module, features: Tensor) -> Tensor:
    logits: Tensor = head(features)  # (n, old labels)
    return logits.amax(dim=1)
