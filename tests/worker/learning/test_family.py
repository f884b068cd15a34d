"""Several heads on one backbone: each sample teaches its own head, all teach what is shared."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.learning.family import FeatureDistillation, Member, SharedNetwork, learn_family
from worker.learning.groups import among_own, evened
from worker.learning.learner import Learned
from worker.learning.optimizers import OptimizerSettings
from worker.learning.penalty import PenaltySettings, Step
from worker.learning.rehearsal_losses import REHEARSAL_LOSSES, Answers
from worker.learning.samples import Samples
from worker.learning.settings import LearnerSettings, RehearsalSettings

INPUTS, WIDTH = 10, 12
SETTINGS = LearnerSettings(optimizer=OptimizerSettings(lr=0.02), penalties=(), passes=12, batch_size=32)


def backbone() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(INPUTS, 24), nn.ReLU(), nn.Linear(24, WIDTH), nn.ReLU()).eval()


def head(rows: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rows)
        return nn.Linear(WIDTH, rows)


def task(rows: int, count: int, seed: int) -> Samples:
    """Inputs of which the sign of some products says the class: nothing that a line could part."""
    generator = torch.Generator().manual_seed(seed)
    items = torch.randn(count, INPUTS, generator=generator)
    bits = (items[:, 0] * items[:, 1] > 0).long() + 2 * (items[:, 2] * items[:, 3] > 0).long()
    targets = bits % rows if rows > 2 else (bits >= 2).long()
    return Samples(list(items), targets, torch.rand(count, generator=generator, dtype=torch.float64))


def members(count: int = 400) -> list[Member]:
    return [Member(head(rows), rows, task(rows, count, seed=rows)) for rows in (4, 2)]


def solved_accuracy(module: nn.Module, rows: int) -> float:
    """Of a least-squares head over the features, on samples that taught nothing."""
    taught, asked = task(rows, 400, seed=rows), task(rows, 400, seed=50 + rows)
    with torch.no_grad():
        x, y = (torch.cat([module(torch.stack(list(one.items))), torch.ones(400, 1)], 1) for one in (taught, asked))
        weight = torch.linalg.lstsq(x, functional.one_hot(taught.targets, rows).float()).solution
        return float(((y @ weight).argmax(1) == asked.targets).float().mean())


def shared(learned: Learned) -> SharedNetwork:
    assert isinstance(learned.network, SharedNetwork)
    return learned.network


def test_both_tasks_gain_from_what_both_teach_the_shared_layers() -> None:
    learned = learn_family(backbone(), members(), SETTINGS, distillation=0.0)
    after = [solved_accuracy(shared(learned).backbone, rows) for rows in (4, 2)]
    before = [solved_accuracy(backbone(), rows) for rows in (4, 2)]
    assert after[0] > before[0] + 0.1
    assert after[1] > before[1] + 0.1
    assert learned.record.fold_losses[-1] < learned.record.fold_losses[0]


def test_the_stronger_the_distillation_the_nearer_the_features_stay() -> None:
    inputs = torch.stack(list(task(4, 100, seed=9).items))
    before, distances = backbone()(inputs), []
    for strength in (0.0, 1.0, 10.0):
        moved = shared(learn_family(backbone(), members(200), SETTINGS, distillation=strength)).backbone
        distances.append(float((moved(inputs) - before).norm().detach()))
    assert distances[0] > 1.5 * distances[1]
    assert distances[1] > distances[2] > 0


def test_distillation_is_zero_at_the_old_features_and_never_negative() -> None:
    network = SharedNetwork(backbone(), [head(4), head(2)])
    distance = FeatureDistillation(network.backbone)
    x = torch.randn(8, INPUTS)
    step = Step(x, torch.zeros(8, dtype=torch.int64), network(x))
    assert float(distance(network, step).detach()) == 0.0
    with torch.no_grad():
        for parameter in network.backbone.parameters():
            parameter.mul_(2)
    network(x)
    assert network.made is not None
    old = backbone()(x)
    expected = float((network.made - old).square().sum().detach() / old.square().sum().detach())
    assert float(distance(network, step).detach()) == pytest.approx(expected)


def test_a_sample_teaches_its_own_head_and_no_other() -> None:
    alone = [members()[0], replace(members()[1], samples=Samples.none())]
    learned = shared(learn_family(backbone(), alone, SETTINGS))
    state = learned.state_dict()
    assert not torch.equal(state["head.each.0.weight"], head(4).state_dict()["weight"])
    assert torch.equal(state["head.each.1.weight"], head(2).state_dict()["weight"])


def test_the_loss_of_groups_is_the_sum_of_their_means() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, groups = torch.randn(7, 5, generator=generator), torch.tensor([0, 0, 0, 1, 1])
    targets = torch.tensor([0, 2, 1, 3, 4, 3, 0])
    of_first = targets < 3
    expected = functional.cross_entropy(logits[of_first, :3], targets[of_first])
    expected = expected + functional.cross_entropy(logits[~of_first, 3:], targets[~of_first] - 3)
    loss = REHEARSAL_LOSSES["er"](RehearsalSettings(), None)
    assert loss(Answers(logits, targets, 7, groups=groups)) == pytest.approx(expected.item())
    assert among_own(logits, targets, groups)[3].argmax() >= 3
    assert evened(torch.ones(7), targets, groups).mean() == pytest.approx(2.0)


def test_the_same_seed_gives_the_same_weights_and_nothing_passed_in_is_changed() -> None:
    module, given = backbone(), members(100)
    state = copy.deepcopy(module.state_dict())
    short = replace(SETTINGS, passes=2, penalties=(PenaltySettings("l2_sp"),))
    once, again = (learn_family(module, given, short) for _ in range(2))
    assert all(
        torch.equal(one, other)
        for one, other in zip(once.network.state_dict().values(), again.network.state_dict().values(), strict=True)
    )
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in state.items())
    assert torch.equal(given[0].head.weight, head(4).weight)  # type: ignore[arg-type]
    assert not any("head" in name for name in once.state)
    assert any("backbone" in name for name in once.state)


def test_what_the_shared_layers_gathered_goes_on_whoever_leads_next() -> None:
    first = learn_family(backbone(), members(100), replace(SETTINGS, passes=2))
    turned = learn_family(backbone(), members(100)[::-1], replace(SETTINGS, passes=2), state=first.state)
    assert turned.record.resumed


def test_a_projection_before_a_head_is_part_of_the_head() -> None:
    class Fixed(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features.relu()

    through = [replace(member, head=nn.Sequential(Fixed(), member.head)) for member in members(60)]
    learned = learn_family(backbone(), through, replace(SETTINGS, passes=1))
    assert learned.network(torch.zeros(3, INPUTS)).shape == (3, 6)
