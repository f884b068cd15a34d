"""Each penalty against its formula."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.learning.ewc import EWC, as_state, importance_in
from worker.learning.failure import LearningFailed
from worker.learning.fisher import fisher
from worker.learning.l2_sp import L2SP
from worker.learning.lwf import LwF
from worker.learning.penalties import make_penalty
from worker.learning.penalty import Origins, PenaltySettings, Step
from worker.learning.trainable import head_names
from worker.learning.weight_vectors import WeightVectors


class Net(nn.Module):
    def __init__(self, rows: int = 2) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 4)
        self.head = nn.Linear(4, rows)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.backbone(x)))
        return logits


def net(rows: int = 2, seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(rows)


def grown(small: Net, rows: int) -> Net:
    large = net(rows, seed=1)
    large.backbone.load_state_dict(small.backbone.state_dict())
    with torch.no_grad():
        large.head.weight[: small.head.out_features] = small.head.weight
        large.head.bias[: small.head.out_features] = small.head.bias
    return large


def step(network: nn.Module, count: int = 5) -> Step:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return Step(x, torch.zeros(count, dtype=torch.int64), network(x))


def test_l2_sp_is_half_the_strength_times_the_squared_distance_over_the_old_slice() -> None:
    start = net()
    large = grown(start, 4)
    with torch.no_grad():
        large.head.weight[2:] += 100.0  # rows that growth added are free
        large.head.weight[0, 0] += 2.0
        large.backbone.bias[1] += 1.0
    penalise = L2SP(large, start, 3.0, head=head_names(large), head_strength=5.0)
    value = penalise(step(large))
    assert value.item() == pytest.approx(3.0 / 2 * 1.0 + 5.0 / 2 * 4.0, rel=1e-5)
    value.backward()  # type: ignore[no-untyped-call]
    assert large.head.weight.grad is not None
    assert large.backbone.bias.grad is not None
    assert large.head.weight.grad[0, 0].item() == pytest.approx(5.0 * 2.0, rel=1e-5)
    assert large.backbone.bias.grad[1].item() == pytest.approx(3.0, rel=1e-5)
    assert not large.head.weight.grad[2:].any()


@pytest.mark.parametrize("head_strength", [None, 5.0])
def test_the_pull_of_held_weights_is_the_gradient_that_autograd_finds(head_strength: float | None) -> None:
    start = net()
    large = grown(start, 4)
    with torch.no_grad():
        for parameter in large.parameters():
            parameter.add_(0.1)
    penalise = L2SP(large, start, 3.0, head=head_names(large), head_strength=head_strength)
    value = penalise()
    value.backward()  # type: ignore[no-untyped-call]
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in large.parameters()]
    weights = WeightVectors(dict(large.named_parameters()), {"head.bias": "a vector of its own"})
    pull = penalise.over(weights)
    for number, parameter in enumerate(large.parameters()):
        assert parameter.grad is not None
        parameter.grad.fill_(number > 0)
    assert pull().item() == pytest.approx(value.item(), rel=1e-6)
    for number, (gradient, place) in enumerate(zip(found, weights.places.values(), strict=True)):
        assert torch.allclose(place.of(weights.gradients[place.vector]), gradient + (number > 0), rtol=1e-5)


def test_l2_sp_towards_pretrained_weights_draws_the_head_to_zero() -> None:
    pretrained, network = net(seed=3), net()
    origins = Origins(net(seed=9), pretrained, head=head_names(network))
    value = make_penalty(network, origins, PenaltySettings(strength=2.0, head_strength=0.5, anchor="pretrained"))(
        step(network)
    )
    shared = sum(
        float((a - b).detach().square().sum())
        for a, b in zip(network.backbone.parameters(), pretrained.backbone.parameters(), strict=True)
    )
    head = sum(float(p.detach().square().sum()) for p in network.head.parameters())
    assert value.item() == pytest.approx(shared + 0.25 * head, rel=1e-5)


def test_l2_sp_towards_pretrained_weights_says_what_is_missing() -> None:
    network = net()
    settings = PenaltySettings(anchor="pretrained")
    with pytest.raises(LearningFailed, match=r"penalties: .* choose anchor 'previous'"):
        make_penalty(network, Origins(network, None, head=head_names(network)), settings)
    network.backbone.requires_grad_(False)
    with pytest.raises(LearningFailed, match="nothing of it learns"):
        make_penalty(network, Origins(network, network, head=head_names(network)), settings)


def by_hand(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    sums = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for one, target in zip(x, y, strict=True):
        loss = functional.cross_entropy(network(one[None]), target[None])
        for name, g in zip(sums, torch.autograd.grad(loss, list(network.parameters())), strict=True):
            sums[name] += g.square() / len(x)
    return sums


@pytest.mark.parametrize("closed_form", [True, False])
def test_the_fisher_is_the_mean_over_samples_of_squared_gradients(closed_form: bool) -> None:
    network = net(3)
    x, y = torch.randn(7, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    measured = fisher(
        network, dict(network.named_parameters()), [(x[:4], y[:4]), (x[4:], y[4:])], closed_form=closed_form
    )
    for name, expected in by_hand(network, x, y).items():
        assert torch.allclose(measured[name], expected, rtol=1e-4, atol=1e-8), name
    assert all(p.grad is None for p in network.parameters())


def test_the_fisher_of_convolutions_and_normalization_is_right_too_and_moves_no_statistics() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3)
    )
    x, y = torch.randn(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    before = copy.deepcopy(network.state_dict())
    measured = fisher(network, dict(network.named_parameters()), [(x, y)])
    for name, expected in by_hand(network, x, y).items():
        assert torch.allclose(measured[name], expected, rtol=1e-4, atol=1e-8), name
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


class Asking(nn.Module):
    """Asks its input a question that vmap cannot answer."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.a if float(x.sum()) > 0 else x @ self.a * 2


def test_the_fisher_of_a_network_that_vmap_cannot_run_comes_sample_by_sample() -> None:
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])
    network = Asking()
    measured = fisher(network, dict(network.named_parameters()), [(x, y)])
    assert torch.allclose(measured["a"], by_hand(network, x, y)["a"], rtol=1e-4)


def test_one_matrix_in_two_layers_is_not_measured_by_the_closed_form() -> None:
    tied = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False))
    tied[2].weight = tied[0].weight
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    measured = fisher(tied, dict(tied.named_parameters()), [(x, y)])
    assert torch.allclose(measured["0.weight"], by_hand(tied, x, y)["0.weight"], rtol=1e-4)


def test_ewc_is_its_formula_with_the_soft_clip_and_leaves_new_rows_free() -> None:
    start = net()
    large = grown(start, 3)
    importance = {name: torch.full_like(p, 0.3) for name, p in start.named_parameters()}
    settings = PenaltySettings("ewc", strength=100.0)
    penalise = EWC(large, start, importance, settings, dict.fromkeys(importance, 0.1))
    with torch.no_grad():
        large.head.weight[2:] += 100.0
        large.head.weight[1, 1] += 2.0
    held = 100 * 0.3 / (1 + 0.1 * 100 * 0.3)
    value = penalise(step(large))
    assert value.item() == pytest.approx(held / 2 * 4.0, rel=1e-5)
    value.backward()  # type: ignore[no-untyped-call]
    assert large.head.weight.grad is not None
    assert large.head.weight.grad[1, 1].item() == pytest.approx(held * 2.0, rel=1e-5)
    assert 0.1 * held < 1  # a plain step cannot overshoot the anchor


def test_ewc_adds_what_it_measures_to_what_is_left_of_before_and_grows_with_the_head() -> None:
    start = net()
    large = grown(start, 3)
    before = {name: torch.ones_like(p) for name, p in start.named_parameters()}
    before["elsewhere"] = torch.ones(2)  # a weight that does not learn today
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    penalty = EWC(large, start, before, PenaltySettings("ewc", decay=0.5), {})
    after = penalty.consolidated(large, [(x, y)])
    measured = by_hand(large, x, y)
    assert torch.allclose(after["backbone.weight"], measured["backbone.weight"] + 0.5, rtol=1e-4)
    assert torch.allclose(after["head.weight"][:2], measured["head.weight"][:2] + 0.5, rtol=1e-4)
    assert torch.allclose(after["head.weight"][2:], measured["head.weight"][2:], rtol=1e-4)
    assert torch.equal(after["elsewhere"], torch.ones(2))
    assert all(torch.equal(value, torch.ones_like(value)) for value in before.values())
    assert importance_in({"about": torch.ones(1), **as_state(after)}).keys() == after.keys()


def test_a_normalised_importance_has_one_as_its_largest_entry() -> None:
    network = net()
    penalty = EWC(network, network, {}, PenaltySettings("ewc", normalise=True), {})
    after = penalty.consolidated(network, [(torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1]))])
    assert max(float(value.max()) for value in after.values()) == pytest.approx(1.0)


def test_lwf_is_the_distance_between_softened_answers_over_the_old_rows() -> None:
    start = net()
    large = grown(start, 4)
    with torch.no_grad():
        large.backbone.weight += 0.3
    now = step(large)
    old, new = start(now.inputs) / 2.0, now.logits[:, :2] / 2.0
    expected = (old.softmax(1) * (old.log_softmax(1) - new.log_softmax(1))).sum(1).mean() * 4 * 1.5
    value = LwF(start, strength=1.5, temperature=2.0)(now)
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    value.backward()  # type: ignore[no-untyped-call]
    assert large.backbone.weight.grad is not None
    assert start.backbone.weight.grad is None


@pytest.mark.parametrize("rows", [0, 1])
def test_lwf_has_nothing_to_keep_of_a_network_with_fewer_than_two_answers(rows: int) -> None:
    with pytest.warns(UserWarning, match="zero-element") if rows == 0 else torch.no_grad():
        start = net(rows)
    assert LwF(start)(step(net())).item() == 0.0


def test_a_loss_of_the_users_own_counts_by_its_strength_and_names_what_is_wrong_with_it() -> None:
    network = net()
    own = {
        "small": lambda module, now: now.logits.square().mean(),
        "wrong": lambda module, now: now.logits,
        "broken": lambda module, now: 1 / 0,
    }
    origins = Origins(network, own=own)
    now = step(network)
    value = make_penalty(network, origins, PenaltySettings("own", strength=3.0, name="small"))(now)
    assert value.item() == pytest.approx(3 * float(now.logits.detach().square().mean()), rel=1e-6)
    for name, complaint in {"wrong": r"a tensor \(5, 2\)", "broken": "ZeroDivisionError"}.items():
        with pytest.raises(LearningFailed, match=complaint):
            make_penalty(network, origins, PenaltySettings("own", name=name))(now)
    with pytest.raises(LearningFailed, match="has 'small', 'wrong', 'broken'"):
        make_penalty(network, origins, PenaltySettings("own", name="absent"))
