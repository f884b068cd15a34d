"""What every optimizer and penalty of the catalogs must satisfy, and what the learner promises with any of them."""

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from app.networks.catalog import build
from app.networks.growth import grow
from app.networks.network import Network
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput
from tests.device import TEST_DEVICE
from worker.learning.failure import LearningFailed, LearningStopped
from worker.learning.learner import Learner
from worker.learning.normalization import LEAST_BATCH
from worker.learning.optimizers import OPTIMIZERS, Optimizer, OptimizerSettings, make_optimizer
from worker.learning.penalties import PENALTIES, make_penalty
from worker.learning.penalty import Origins, PenaltySettings, Step
from worker.learning.rehearsal_losses import REHEARSAL_LOSSES
from worker.learning.samples import Samples
from worker.learning.settings import LearnerSettings, RehearsalSettings
from worker.learning.trainable import head_names

INPUTS, WIDTH = 6, 8
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

TRAINED: tuple[Literal["all", "head", "last_blocks", "bitfit"], ...] = ("all", "head", "last_blocks", "bitfit")


def compositions() -> list[LearnerSettings]:
    """Every optimizer with every penalty, and every pair of a rehearsal loss and what trains, spread over them."""
    others = itertools.cycle(itertools.product(TRAINED, REHEARSAL_LOSSES))
    found = []
    for optimizer, penalty in itertools.product(OPTIMIZERS, PENALTIES):
        trainable, rehearsal = next(others)
        settings = LearnerSettings(
            optimizer=OptimizerSettings(optimizer, lr=0.01, backbone_lr=0.005 if trainable == "all" else None),
            penalties=(PenaltySettings(penalty, strength=0.1, name="mine", samples=20),),
            rehearsal=RehearsalSettings(rehearsal),
            trainable=trainable,
            batch_size=16,
            passes=4,
            steps_per_pass=3,
        )
        found.append(settings)
    together = tuple(PenaltySettings(penalty, strength=0.01, name="mine", samples=20) for penalty in PENALTIES)
    return [*found, replace(found[0], penalties=together, dropout=0.2, interpolation=0.8, clip_norm=1.0)]


def named(settings: LearnerSettings) -> str:
    penalties = "+".join(penalty.kind for penalty in settings.penalties)
    return "-".join((settings.optimizer.kind, penalties, settings.rehearsal.kind, settings.trainable))


EACH = pytest.mark.parametrize("composition", compositions(), ids=named)


class Small(nn.Module):
    """A backbone with BatchNorm and dropout, and a head; images of one channel where asked for."""

    def __init__(self, rows: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(WIDTH, rows)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(x))
        return logits


def network(rows: int = 3, seed: int = 0) -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Small(rows).eval()


def grown(parent: Small, rows: int) -> Small:
    """The same network with rows added at the end."""
    result = network(rows, seed=1)
    result.backbone.load_state_dict(parent.backbone.state_dict())
    with torch.no_grad():
        old = parent.head.out_features
        result.head.weight[:old] = parent.head.weight
        result.head.bias[:old] = parent.head.bias
    return result


def samples(count: int, rows: int = 3, seed: int = 0) -> Samples:
    """Blobs: the class shifts one input."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % max(rows, 1)
    items = torch.randn(count, INPUTS, generator=generator)
    items[torch.arange(count), targets] += 3
    return Samples(list(items), targets, torch.rand(count, generator=generator, dtype=torch.float64))


def learner(settings: LearnerSettings) -> Learner:
    return Learner(settings, TEST_DEVICE, own=OWN)


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )


def own_loss(module: nn.Module, step: Step) -> Tensor:
    """A user's loss that is zero at the weights of `network()`."""
    points = dict(network().named_parameters())
    learned = {name: p for name, p in module.named_parameters() if name in points and name.startswith("backbone")}
    moves = [(p - points[name]).square().sum() for name, p in learned.items() if p.shape == points[name].shape]
    return torch.stack([step.logits.new_zeros(()), *moves]).sum()


OWN = {"mine": own_loss}


def importance(of: nn.Module) -> dict[str, Tensor]:
    """What EWC would have left in a learner state."""
    return {f"ewc:{name}": torch.rand_like(parameter) for name, parameter in of.named_parameters()}


@pytest.mark.parametrize("anchor", ["previous", "pretrained"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_penalty_is_zero_at_its_anchor_and_never_negative(
    penalty: str, anchor: Literal["previous", "pretrained"]
) -> None:
    start = network()
    moved = copy.deepcopy(start)
    if anchor == "pretrained":
        with torch.no_grad():  # of a head, that anchor is zero
            moved.head.weight.zero_()
            moved.head.bias.zero_()
    origins = Origins(
        start if anchor == "previous" else moved, start, importance(start), own=OWN, head=head_names(start)
    )
    penalise = make_penalty(moved, origins, PenaltySettings(penalty, strength=2.0, anchor=anchor, name="mine"))
    x = torch.randn(4, INPUTS)
    step = Step(x, torch.zeros(4, dtype=torch.int64), moved(x))
    assert penalise(step).item() == 0.0
    penalise(step).backward()  # type: ignore[no-untyped-call]
    assert all(bool(p.grad.isfinite().all()) for p in moved.parameters() if p.grad is not None)
    for _ in range(5):
        with torch.no_grad():
            for parameter in moved.parameters():
                parameter.add_(torch.randn_like(parameter))
        assert penalise(Step(x, step.targets, moved(x))).item() > 0.0


@pytest.mark.parametrize("penalty", PENALTIES)
def test_rows_that_came_later_are_free_of_every_penalty(penalty: str) -> None:
    start = network(rows=2)
    larger = grown(start, rows=4)
    origins = Origins(start, None, importance(start), own=OWN, head=head_names(larger))
    penalise = make_penalty(larger, origins, PenaltySettings(penalty, strength=2.0, name="mine"))
    with torch.no_grad():
        larger.head.weight[2:] += 100.0
    x = torch.randn(4, INPUTS)
    # A head of four rows may round otherwise than one of two.
    free = penalise(Step(x, torch.zeros(4, dtype=torch.int64), larger(x))).item()
    assert free == pytest.approx(0.0, abs=1e-5)


@EACH
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(composition: LearnerSettings) -> None:
    once = learner(composition)
    runs = [once.learn(network(), new=samples(40), memory=samples(30, seed=5)) for _ in range(2)]
    assert same(runs[0].network, runs[1].network)
    assert runs[0].record.fold_losses == runs[1].record.fold_losses
    other = learner(replace(composition, seed=1)).learn(network(), new=samples(40), memory=samples(30, seed=5))
    assert not same(runs[0].network, other.network)


@EACH
def test_learning_leaves_its_inputs_and_the_random_numbers_of_others_unchanged(composition: LearnerSettings) -> None:
    parent, larger = network(), grown(network(), 4)
    before = copy.deepcopy(parent), copy.deepcopy(larger)
    new, memory = samples(20, rows=4), samples(30)
    items = [item.clone() for item in new.items]
    first = learner(composition).learn(network(), new=samples(20))
    state = {key: value.clone() for key, value in first.state.items()}
    random = torch.get_rng_state()
    learner(composition).learn(larger, new=new, memory=memory, parent=parent, state=first.state)
    assert torch.equal(torch.get_rng_state(), random)
    assert same(parent, before[0])
    assert same(larger, before[1])
    assert all(p.grad is None for p in [*parent.parameters(), *larger.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(items, new.items, strict=True))
    assert all(torch.equal(value, first.state[key]) for key, value in state.items())


@EACH
def test_learning_learns(composition: LearnerSettings) -> None:
    learned = learner(replace(composition, passes=30)).learn(network(), new=samples(60))
    test = samples(300, seed=9)
    with torch.inference_mode():
        accuracy = (learned.network(torch.stack(list(test.items))).argmax(1) == test.targets).float().mean()
    assert float(accuracy) > 0.8
    assert learned.record.fold_accuracy is not None
    assert learned.record.majority_accuracy is not None
    assert learned.record.fold_accuracy > learned.record.majority_accuracy


SLOTS = {"sgd": ("momentum_buffer",), "adam": ("exp_avg", "step"), "adamw": ("exp_avg", "step")}


def take_steps(net: Small, optimizer: Optimizer, count: int, seed: int) -> None:
    torch.manual_seed(seed)
    for _ in range(count):
        optimizer.weights.clear()
        net(torch.randn(8, INPUTS)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_saved_and_resumed_optimizer_takes_the_same_next_step(kind: str) -> None:
    config = OptimizerSettings(kind, lr=0.01, weight_decay=0.01)
    net = network()
    optimizer = make_optimizer(dict(net.named_parameters()), config)
    take_steps(net, optimizer, 3, seed=0)
    twin = copy.deepcopy(net)
    resumed = make_optimizer(dict(twin.named_parameters()), config, state=load(save(optimizer.export_state())))
    assert resumed.resumed
    take_steps(net, optimizer, 2, seed=1)
    take_steps(twin, resumed, 2, seed=1)
    assert same(net, twin)


@EACH
def test_learning_carried_on_from_saved_state_equals_learning_carried_on_in_memory(
    composition: LearnerSettings,
) -> None:
    once = learner(composition)
    first = once.learn(network(), new=samples(40))
    reloaded = network(seed=3)
    reloaded.load_state_dict(load(save(first.network.state_dict())))
    plain = once.learn(first.network, new=samples(40, seed=2), state=first.state)
    saved = once.learn(reloaded, new=samples(40, seed=2), state=load(save(first.state)))
    fresh = once.learn(first.network, new=samples(40, seed=2))
    assert same(plain.network, saved.network)
    assert plain.record.resumed
    assert not same(plain.network, fresh.network)  # the state mattered


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizer_state_grows_with_the_head_and_starts_at_zero_there(kind: str) -> None:
    config = OptimizerSettings(kind)
    net = network(rows=2)
    optimizer = make_optimizer(dict(net.named_parameters()), config)
    take_steps(net, optimizer, 2, seed=0)
    larger = grown(net, rows=5)
    old = optimizer.export_state()
    resumed = make_optimizer(dict(larger.named_parameters()), config, state=old)
    assert resumed.resumed
    new = resumed.export_state()
    assert old.keys() == new.keys()
    assert {f"{slot}/head.weight" for slot in SLOTS[kind]} <= old.keys()
    for slot, value in old.items():
        if value.dim() == 0 or slot == "about":
            assert torch.equal(new[slot], value)
        else:
            assert torch.equal(new[slot][: len(value)], value)
            assert not new[slot][len(value) :].any()
    take_steps(larger, resumed, 1, seed=0)


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_a_weight_that_learns_for_the_first_time_moves_as_in_a_first_step(kind: str) -> None:
    config = OptimizerSettings(kind, lr=0.01)
    net = network()
    head = {name: parameter for name, parameter in net.named_parameters() if name.startswith("head")}
    optimizer = make_optimizer(head, config)
    take_steps(net, optimizer, 100, seed=0)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    take_steps(net, make_optimizer(dict(net.named_parameters()), config, state=optimizer.export_state()), 1, seed=1)
    moved = (net.get_parameter("backbone.0.weight") - before["backbone.0.weight"]).abs().max()
    assert float(moved.detach()) == pytest.approx(0.01, rel=0.01), (
        "its own count of steps, or it would move three times as far"
    )


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_state_of_another_kind_or_of_no_known_form_is_left_aside(kind: str) -> None:
    net = network()
    named = dict(net.named_parameters())
    other = make_optimizer(named, OptimizerSettings(next(name for name in OPTIMIZERS if name != kind)))
    take_steps(net, other, 1, seed=0)
    for state in (other.export_state(), {"about": torch.tensor([1], dtype=torch.uint8)}, {}):
        optimizer = make_optimizer(named, OptimizerSettings(kind), state=state)
        assert not optimizer.resumed
        assert not any(bool(value.any()) for slot, value in optimizer.export_state().items() if slot != "about")


@EACH
def test_a_class_that_came_later_is_learned_and_the_others_stay(composition: LearnerSettings) -> None:
    config = replace(composition, passes=30)
    first = learner(config).learn(network(rows=2), new=samples(60, rows=2))
    assert isinstance(first.network, Small)
    every = samples(90, rows=3, seed=4)
    inside = [i for i in range(90) if int(every.targets[i]) == 2]
    new = Samples([every.items[i] for i in inside], every.targets[inside], every.keys[inside])
    second = learner(config).learn(
        grown(first.network, 3), new=new, memory=samples(60, rows=2), parent=first.network, state=first.state
    )
    test = samples(300, seed=9)
    with torch.inference_mode():
        right = second.network(torch.stack(list(test.items))).argmax(1) == test.targets
    for target in range(3):
        assert float(right[test.targets == target].float().mean()) > 0.6


@EACH
def test_a_claim_of_one_sample_and_batches_of_one_work(composition: LearnerSettings) -> None:
    for batch_size in (1, 16):
        config = replace(composition, batch_size=batch_size, batch_statistics=True)
        alone = learner(config).learn(network(), new=samples(1))
        assert alone.record.fold_accuracy is None
        learner(config).learn(network(), new=samples(1), memory=samples(20), state=alone.state)
        nothing = learner(config).learn(network(), new=Samples.none(), memory=samples(20))
        assert nothing.record.steps > 0


@EACH
def test_batch_norm_keeps_its_statistics(composition: LearnerSettings) -> None:
    learned = learner(composition).learn(network(), new=samples(40), memory=samples(30, seed=5))
    after, before = learned.network.state_dict(), network().state_dict()
    for name in STATISTICS:
        assert torch.equal(after[f"backbone.1.{name}"], before[f"backbone.1.{name}"])


@EACH
def test_a_class_that_comes_later_moves_no_logit_by_itself_even_if_its_id_sorts_first(
    composition: LearnerSettings,
) -> None:
    spec = NetworkSpec(architecture="mlp", input=FeaturesInput(size=INPUTS), labels=(20, 30), seed=0)
    first = learner(composition).learn(build(spec, {}), new=samples(40, rows=2))
    assert isinstance(first.network, Network)
    new = samples(20, rows=3, seed=3)
    larger = grow(first.network, (10,))
    x = torch.stack(list(new.items))
    with torch.no_grad():
        old, now = first.network(x), larger(x)
    assert larger.spec.labels == (20, 30, 10)
    assert torch.equal(now[:, :2], old)
    nothing = learner(composition).learn(larger, new=Samples.none(), parent=first.network, state=first.state).network
    with torch.no_grad():
        assert torch.equal(nothing(x)[:, :2], old)
    learned = learner(composition).learn(larger, new=new, parent=first.network, state=first.state).network
    assert isinstance(learned, Network)
    assert learned.spec == larger.spec


@EACH
def test_what_may_learn_is_as_it_was_afterwards_and_no_hook_is_left(composition: LearnerSettings) -> None:
    start = network()
    start.get_parameter("backbone.0.bias").requires_grad_(False)
    learned = learner(composition).learn(start, new=samples(20)).network
    assert [name for name, p in learned.named_parameters() if not p.requires_grad] == ["backbone.0.bias"]
    assert torch.equal(learned.get_parameter("backbone.0.bias"), start.get_parameter("backbone.0.bias"))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in learned.modules())


@EACH
def test_a_step_that_is_saved_and_taken_up_again_is_the_step_that_would_have_come(
    composition: LearnerSettings,
) -> None:
    """As for the optimizer alone, with penalties that hold and importance that was measured."""
    config = replace(composition, passes=1, steps_per_pass=1, fold=0.0)
    before = learner(composition).learn(network(), new=samples(40))
    once = [
        learner(config).learn(before.network, new=samples(8, seed=2), memory=samples(9, seed=7), state=state)
        for state in (before.state, load(save(before.state)))
    ]
    assert once[0].record.steps == 1
    assert same(once[0].network, once[1].network)
    assert once[0].state.keys() == once[1].state.keys()
    assert all(torch.equal(value, once[1].state[key]) for key, value in once[0].state.items())


def test_with_nothing_to_learn_from_the_weights_stay() -> None:
    learned = Learner(LearnerSettings()).learn(network(), new=Samples.none())
    assert learned.record.steps == 0
    assert same(learned.network, network())


@pytest.mark.parametrize(
    ("allowed", "count", "move"), [(False, 60, False), (True, LEAST_BATCH - 4, False), (True, 60, True)]
)
def test_batch_norm_statistics_move_only_when_allowed_and_with_large_batches(
    allowed: bool, count: int, move: bool
) -> None:
    config = LearnerSettings(batch_statistics=allowed, passes=3)
    learned = learner(config).learn(network(), new=samples(count)).network.state_dict()
    before = network().state_dict()
    for name in STATISTICS:
        assert torch.equal(learned[f"backbone.1.{name}"], before[f"backbone.1.{name}"]) is not move


def test_the_head_alone_learns_while_the_backbone_stays_to_the_bit() -> None:
    learned = Learner(LearnerSettings(trainable="head", batch_statistics=True)).learn(network(), new=samples(60))
    assert isinstance(learned.network, Small)
    assert same(learned.network.backbone, network().backbone)
    assert not same(learned.network.head, network().head)
    assert {key.split("/")[1] for key in learned.state if "/" in key} == {"head.weight", "head.bias"}
    with pytest.raises(LearningFailed, match="backbone"):
        Learner(LearnerSettings(trainable="head")).learn(nn.Linear(INPUTS, 3), new=samples(20))


def test_any_module_that_scores_rows_can_learn() -> None:
    learned = Learner(LearnerSettings()).learn(nn.Linear(INPUTS, 3), new=samples(60))
    assert learned.record.best_pass > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_end_in_one_clear_error(bad: float) -> None:
    new = samples(20)
    poisoned = Samples([*new.items[:-1], torch.full((INPUTS,), bad)], new.targets, new.keys)
    with pytest.raises(LearningFailed, match=r"inputs of 1 of .* NaN or infinite"):
        Learner(LearnerSettings()).learn(network(), new=poisoned)


def test_an_extreme_learning_rate_never_leaves_numbers_that_are_not_finite() -> None:
    config = LearnerSettings(optimizer=OptimizerSettings("sgd", lr=1e30))
    with pytest.raises(LearningFailed, match="learning rate"):
        learner(config).learn(network(), new=samples(40))


def test_one_sample_has_bounded_influence() -> None:
    new = samples(40)
    config = LearnerSettings(optimizer=OptimizerSettings("sgd", lr=0.1, momentum=0.0), penalties=(), clip_norm=0.5)
    config = replace(config, passes=1, steps_per_pass=1, batch_size=64, fold=0.0)
    outlier = Samples([*new.items[:-1], torch.full((INPUTS,), 1e6)], new.targets, new.keys)
    before, after = network(), learner(config).learn(network(), new=outlier).network
    moves = [(a - b).detach() for a, b in zip(after.parameters(), before.parameters(), strict=True)]
    assert float(torch.stack([move.norm() for move in moves]).norm()) <= 0.1 * 0.5 * 1.001


def test_it_stops_between_two_steps_when_told_to() -> None:
    calls: Iterator[int] = itertools.count()
    stop: Callable[[], bool] = lambda: next(calls) >= 5  # noqa: E731 - a name for the type
    with pytest.raises(LearningStopped):
        Learner(LearnerSettings()).learn(network(), new=samples(40), should_stop=stop)
    assert next(calls) == 6


@pytest.mark.parametrize("field", ["optimizer", "penalties"])
def test_a_name_that_no_catalog_has_is_refused_with_those_it_has(field: str) -> None:
    odd = {"optimizer": OptimizerSettings("lion"), "penalties": (PenaltySettings("hope"),)}[field]
    with pytest.raises(LearningFailed, match="choose one of"):
        Learner(replace(LearnerSettings(), **{field: odd})).learn(network(), new=samples(8))  # type: ignore[arg-type]
