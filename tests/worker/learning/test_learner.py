"""What the learner does with the settings that change more than the loss."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from worker.learning.augmentation import AugmentationSettings
from worker.learning.failure import LearningFailed
from worker.learning.learner import Learner
from worker.learning.optimizers import OptimizerSettings, make_optimizer
from worker.learning.penalty import PenaltySettings
from worker.learning.samples import Samples
from worker.learning.settings import LearnerSettings, RehearsalSettings

NAN = float("nan")


class Net(nn.Module):
    def __init__(self, rows: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8))
        self.head = nn.Linear(8, rows)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(x))
        return logits


def net(rows: int = 3) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(rows).eval()


def pictures(count: int, rows: int = 3, seed: int = 0) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % rows
    items = torch.randn(count, 1, 6, 6, generator=generator)
    items[torch.arange(count), 0, targets, targets] += 4
    return Samples(list(items), targets, torch.rand(count, generator=generator, dtype=torch.float64))


SHORT = LearnerSettings(passes=3, steps_per_pass=3, batch_size=16)


def test_interpolation_puts_every_weight_between_before_and_learned_and_leaves_new_rows() -> None:
    parent, larger = net(2), net(3)
    with torch.no_grad():
        larger.load_state_dict(
            {
                name: torch.cat([old, torch.ones(1, *old.shape[1:])]) if name.startswith("head") else old
                for name, old in parent.state_dict().items()
            }
        )
    whole, part = (
        Learner(replace(SHORT, interpolation=share)).learn(larger, new=pictures(40), parent=parent).network.state_dict()
        for share in (1.0, 0.25)
    )
    for name, before in parent.state_dict().items():
        rows = len(before) if before.dim() else None
        learned, fused = (whole[name], part[name]) if rows is None else (whole[name][:rows], part[name][:rows])
        assert torch.allclose(fused.double(), 0.75 * before.double() + 0.25 * learned.double(), atol=1e-6), name
    assert torch.equal(part["head.weight"][2:], whole["head.weight"][2:])
    assert not torch.equal(part["head.weight"], whole["head.weight"])


def test_averaging_takes_moving_statistics_along_and_leaves_counters() -> None:
    settings = replace(SHORT, batch_statistics=True, fold=0.0)
    last, averaged = (
        Learner(replace(settings, averaging=decay)).learn(net(), new=pictures(40)).network.state_dict()
        for decay in (0.0, 0.97)
    )
    before = net().state_dict()
    for name in ("running_mean", "running_var"):
        name = f"backbone.1.{name}"  # noqa: PLW2901
        moved = [float((state[name] - before[name]).norm()) for state in (last, averaged)]
        assert 0 < moved[1] < 0.5 * moved[0]
    counter = "backbone.1.num_batches_tracked"
    assert int(averaged[counter]) == int(last[counter]) > 0


def test_statistics_of_layers_that_stand_still_stay_even_where_others_may_move() -> None:
    settings = replace(SHORT, batch_statistics=True, trainable="last_blocks")
    learned = Learner(settings).learn(net(), new=pictures(60)).network.state_dict()
    before = net().state_dict()
    changed = {name for name in before if not torch.equal(before[name], learned[name])}
    assert changed == {"backbone.4.weight", "backbone.4.bias", "head.weight", "head.bias"}


def test_dropout_of_the_heads_inputs_changes_learning_and_not_answers() -> None:
    plain = Learner(SHORT).learn(net(), new=pictures(40)).network
    for trainable in ("all", "head"):
        dropped = Learner(replace(SHORT, dropout=0.5, trainable=trainable)).learn(net(), new=pictures(40)).network
        assert not torch.equal(dropped.get_parameter("head.weight"), plain.get_parameter("head.weight"))
        x = torch.stack(list(pictures(5).items))
        with torch.no_grad():
            assert torch.equal(dropped(x), dropped(x))


def test_augmentation_changes_learning_alike_for_the_same_seed() -> None:
    settings = replace(SHORT, augmentation=AugmentationSettings(crop=1, flip=True))
    one, other, plain = (Learner(s).learn(net(), new=pictures(40)).network for s in (settings, settings, SHORT))
    weights = [network.get_parameter("backbone.0.weight") for network in (one, other, plain)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    with pytest.raises(LearningFailed, match="leave `augmentation` out"):
        Learner(replace(settings, trainable="head")).learn(net(), new=pictures(40))


def test_the_head_and_the_rest_learn_at_their_own_rates() -> None:
    named = dict(net().named_parameters())
    head = {name for name in named if name.startswith("head")}
    optimizer = make_optimizer(named, OptimizerSettings("sgd", lr=0.1, backbone_lr=0.01), head)
    found = {name: optimizer.rates[place.vector] for name, place in optimizer.weights.places.items()}
    assert found == {name: 0.1 if name in head else 0.01 for name in named}
    settings = replace(SHORT, penalties=(), optimizer=OptimizerSettings("sgd", lr=0.01, backbone_lr=1e-6))
    learned = Learner(settings).learn(net(), new=pictures(40)).network.state_dict()
    before = net().state_dict()
    assert float((learned["backbone.4.weight"] - before["backbone.4.weight"]).norm()) < 1e-3
    assert float((learned["head.weight"] - before["head.weight"]).norm()) > 1e-2


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_dark_experience_replay_gives_the_logits_to_remember(trainable: str) -> None:
    new = pictures(20)
    settings = replace(SHORT, rehearsal=RehearsalSettings("der_pp"), trainable=trainable)  # type: ignore[arg-type]
    first = Learner(settings).learn(net(), new=new)
    assert first.logits is not None
    with torch.no_grad():
        assert torch.allclose(first.logits, first.network(torch.stack(list(new.items))), atol=1e-5)
    memory = replace(new, logits=first.logits)
    second = Learner(settings).learn(first.network, new=pictures(20, seed=2), memory=memory, state=first.state)
    without = Learner(settings).learn(first.network, new=pictures(20, seed=2), memory=new, state=first.state)
    name = "head.weight"
    assert not torch.equal(second.network.get_parameter(name), without.network.get_parameter(name))
    assert Learner(SHORT).learn(net(), new=new).logits is None


def test_ewc_measures_for_the_next_update_and_then_holds_what_mattered() -> None:
    settings = replace(SHORT, penalties=(PenaltySettings("ewc", strength=1000.0),), averaging=0.0)
    free = replace(settings, penalties=())
    first = Learner(settings).learn(net(), new=pictures(40))
    measured = {key: value for key, value in first.state.items() if key.startswith("ewc:")}
    assert measured.keys() == {f"ewc:{name}" for name, _ in net().named_parameters()}
    assert all(float(value.min()) >= 0 for value in measured.values())
    assert any(float(value.max()) > 0 for value in measured.values())
    moves = []
    for chosen in (settings, free):
        second = Learner(chosen).learn(first.network, new=pictures(40, seed=4), state=first.state)
        pairs = zip(second.network.parameters(), first.network.parameters(), strict=True)
        weight = [measured[f"ewc:{name}"] for name, _ in net().named_parameters()]
        moves.append(sum(float((w * (a - b).detach().square()).sum()) for w, (a, b) in zip(weight, pairs, strict=True)))
    assert moves[0] < 0.5 * moves[1]


def test_samples_bring_their_remembered_logits_together_and_nan_where_there_are_none() -> None:
    two = replace(pictures(2), logits=torch.ones(2, 2))
    three = replace(pictures(3), logits=torch.zeros(3, 4))
    joined = two.followed_by(pictures(1)).followed_by(three)
    expected = torch.tensor([[1.0, 1, NAN, NAN]] * 2 + [[NAN] * 4] + [[0.0] * 4] * 3)
    assert joined.logits is not None
    assert torch.equal(joined.logits.isnan(), expected.isnan())
    assert torch.equal(joined.logits.nan_to_num(), expected.nan_to_num())
    assert pictures(2).followed_by(pictures(1)).logits is None
    assert torch.equal(joined.remembered([5, 0])[:, :2], torch.tensor([[0.0, 0], [1, 1]]))  # type: ignore[index]
    with pytest.raises(ValueError, match="equally many"):
        replace(pictures(3), logits=torch.zeros(2, 2))


def test_features_that_are_not_finite_are_told_from_inputs_that_are_not() -> None:
    broken = net()
    with torch.no_grad():
        broken.get_parameter("backbone.4.weight")[0] = NAN
    settings = replace(SHORT, trainable="head")
    with pytest.raises(LearningFailed, match="features the backbone makes of 9 of 9"):
        Learner(settings).learn(broken, new=pictures(9))
    poisoned = pictures(9)
    poisoned.items[4][0, 0, 0] = NAN
    with pytest.raises(LearningFailed, match="inputs of 1 of 9"):
        Learner(settings).learn(net(), new=poisoned)


def test_what_was_learned_shares_no_memory_and_the_process_keeps_its_random_numbers() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    learned = Learner(SHORT).learn(net(), new=pictures(20)).network
    assert torch.equal(torch.rand(3), expected)
    for tensor in learned.state_dict().values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_samples_are_made_ready_once_where_that_is_little_and_all_are_of_one_shape() -> None:
    targets, keys = torch.arange(3), torch.rand(3, dtype=torch.float64)
    calls = []

    def halved(items: Sequence[Tensor]) -> Tensor:
        calls.append(len(items))
        return torch.stack(list(items)) / 2

    samples = Samples([torch.full((2,), value) for value in (2.0, 4.0, 6.0)], targets, keys, halved)
    ready = samples.made_ready()
    for indices in ([2, 0], [1]):
        for one, other in zip(ready.batch(indices), samples.batch(indices), strict=True):
            assert torch.equal(one, other)
    assert calls == [1, 3, 2, 1], "one to see how much it takes, all, and what was asked of the others"
    assert ready.made_ready() is ready
    large = Samples([torch.zeros(8_000_000)] * 3, targets, keys)
    assert large.made_ready() is large
    assert Samples.none().made_ready().items == []
