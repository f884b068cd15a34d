"""How new and remembered samples make one loss."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.learning.failure import LearningFailed
from worker.learning.optimizers import Optimizer, OptimizerSettings, make_optimizer
from worker.learning.rehearsal_losses import REHEARSAL_LOSSES, Answers
from worker.learning.settings import RehearsalSettings
from worker.learning.stepper import Batch, Stepper

NAN = float("nan")
KINDS = pytest.mark.parametrize("kind", REHEARSAL_LOSSES)


def logits(count: int, rows: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, rows, generator=torch.Generator().manual_seed(seed))


def loss(kind: str, answers: Answers, seen: Tensor | None = None, **settings: float) -> float:
    return float(REHEARSAL_LOSSES[kind](RehearsalSettings(kind, **settings), seen)(answers))


@KINDS
def test_without_memory_or_without_new_samples_it_is_the_cross_entropy_of_what_there_is(kind: str) -> None:
    z, y = logits(3), torch.tensor([0, 1, 1])
    expected = pytest.approx(float(functional.cross_entropy(z, y)), rel=1e-6)
    assert loss(kind, Answers(z, y, new=3)) == expected
    assert loss(kind, Answers(z, y, new=0, draws=(3,))) == expected


def test_er_ace_pushes_no_seen_class_away_for_a_new_sample() -> None:
    z = logits(4).requires_grad_()
    y = torch.tensor([2, 3, 0, 1])
    replay = REHEARSAL_LOSSES["er_ace"](RehearsalSettings("er_ace"), torch.tensor([0, 1]))
    replay(Answers(z, y, new=2, draws=(2,), remembered=(None,))).backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert not z.grad[:2, :2].any()  # rows 0 and 1 were seen and are not among the new ones
    assert z.grad[:2, 2:].all()
    assert z.grad[2:].all()  # remembered samples compete with every row


def test_er_ace_compares_new_samples_with_rows_unseen_until_now_whatever_the_order_of_classes() -> None:
    z, y = logits(2), torch.tensor([1, 3])
    shown = torch.tensor([True, True, False, False])  # 1 is new, nothing came for 0 yet; 2 and 3 were seen
    masked = z[:1].masked_fill(~shown, -math.inf)
    expected = 0.5 * functional.cross_entropy(masked, y[:1]) + 0.5 * functional.cross_entropy(z[1:], y[1:])
    assert loss("er_ace", Answers(z, y, 1, (1,), (None,)), torch.tensor([2, 3])) == pytest.approx(expected.item())


def test_er_ace_still_learns_a_batch_of_one_when_every_row_has_been_seen() -> None:
    z = logits(3).requires_grad_()
    y = torch.tensor([2, 2, 1])
    replay = REHEARSAL_LOSSES["er_ace"](RehearsalSettings("er_ace"), torch.arange(4))
    replay(Answers(z, y, new=1, draws=(2,), remembered=(None,))).backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert z.grad[0].nonzero().flatten().tolist() == [1, 2]


def test_der_pp_is_its_formula_and_leaves_out_rows_that_did_not_exist() -> None:
    z, y = logits(6), torch.tensor([0, 1, 2, 3, 0, 1])
    stored = torch.tensor([[1.0, NAN, 2.0], [0.5, 0.0, NAN]])  # and no fourth column yet
    square = (z[2, 0] - 1.0) ** 2 + (z[2, 2] - 2.0) ** 2 + (z[3, 0] - 0.5) ** 2 + z[3, 1] ** 2
    expected = functional.cross_entropy(z[:2], y[:2]) + 0.2 * square / 4 + 0.7 * functional.cross_entropy(z[4:], y[4:])
    answers = Answers(z, y, 2, (2, 2), (stored, None))
    assert loss("der_pp", answers, alpha=0.2, beta=0.7) == pytest.approx(expected.item(), rel=1e-6)


def test_der_pp_gives_finite_gradients_beside_logits_that_were_not_stored() -> None:
    z = logits(4).requires_grad_()
    stored = torch.full((2, 4), NAN)
    replay = REHEARSAL_LOSSES["der_pp"](RehearsalSettings("der_pp"), None)
    answers = Answers(z, torch.zeros(4, dtype=torch.int64), 0, (2, 2), (stored, None))
    replay(answers).backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())
    assert not z.grad[:2].any()


def sgd(module: nn.Module) -> Optimizer:
    return make_optimizer(dict(module.named_parameters()), OptimizerSettings("sgd", lr=0.1, momentum=0.0))


@KINDS
def test_a_stepper_takes_one_gradient_step_and_shows_what_the_new_samples_gave_before_it(kind: str) -> None:
    torch.manual_seed(0)
    module = nn.Linear(5, 4)
    before, x, y = module.weight.detach().clone(), torch.randn(3, 5), torch.tensor([0, 1, 2])
    expected = module(x).detach()
    stepper = Stepper(module, sgd(module), rehearsal=RehearsalSettings(kind))
    memory = [Batch(torch.randn(2, 5), torch.tensor([3, 3]), torch.zeros(2, 4)) for _ in range(stepper.draws)]
    losses = [stepper.step(Batch(x, y), memory)]
    assert stepper.new_logits is not None
    assert torch.allclose(stepper.new_logits, expected, atol=1e-6)
    assert not torch.equal(module.weight, before)
    losses += [stepper.step(Batch(x, y), memory) for _ in range(30)]
    assert losses[-1] < losses[0]
    assert stepper.steps == 31


def test_a_draw_may_have_remembered_fewer_rows_than_another_or_nothing() -> None:
    torch.manual_seed(0)
    x, draws = torch.randn(3, 5), [torch.randn(2, 5) for _ in range(2)]
    stored = (torch.randn(2, 3), torch.randn(2, 2), None)
    losses = []
    for second in stored:
        torch.manual_seed(1)
        module = nn.Linear(5, 4)
        stepper = Stepper(module, sgd(module), rehearsal=RehearsalSettings("der_pp", alpha=0.5, beta=0.5))
        memory = [Batch(draws[0], torch.tensor([3, 3]), stored[0]), Batch(draws[1], torch.tensor([2, 1]), second)]
        answers = module(torch.cat([x, *draws])).detach()
        losses.append(stepper.step(Batch(x, torch.tensor([0, 1, 2])), memory))
        distance = (answers[3:5, :3] - stored[0]).square().mean()  # type: ignore[operator]
        known = functional.cross_entropy(answers[5:], torch.tensor([2, 1]))
        wanted = functional.cross_entropy(answers[:3], torch.tensor([0, 1, 2])) + 0.5 * distance + 0.5 * known
        assert losses[-1] == pytest.approx(wanted.item(), rel=1e-5)
    assert losses[0] == losses[1] == losses[2], "logits of the second draw are not compared"


def test_a_step_on_numbers_that_are_not_finite_names_the_inputs_and_moves_nothing() -> None:
    module = nn.Linear(5, 4)
    before = module.weight.detach().clone()
    stepper = Stepper(module, sgd(module))
    x = torch.randn(3, 5)
    x[1, 2] = NAN
    with pytest.raises(LearningFailed, match="inputs of 1 of 3 samples"):
        stepper.step(Batch(x, torch.zeros(3, dtype=torch.int64)))
    assert torch.equal(module.weight, before)


def test_a_rehearsal_loss_that_no_catalog_has_is_refused_with_those_it_has() -> None:
    module = nn.Linear(5, 4)
    with pytest.raises(LearningFailed, match="choose one of er, er_ace, der_pp"):
        Stepper(module, sgd(module), rehearsal=RehearsalSettings("hope"))
