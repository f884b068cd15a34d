"""What a refined head is solved from: when it looks at its samples anew, and that nothing of what goes stays."""

import pytest
import torch
from torch import Tensor

from app.recipe import Recipe
from worker.learning.closed_form import MASKED, Solved, discriminant, laid_out
from worker.learning.refinement import START, refined
from worker.learning.strength import Choice
from worker.tally import Change
from worker.taught import Taught

LABELS = (3, 1, 4)
RECIPE = Recipe.model_validate({"head": {"kind": "slda", "refinement": 2}, "trainable": "head", "penalties": []})


class Pupil:
    """Sums of some width, and the features that they came from."""

    def __init__(self, width: int) -> None:
        generator = torch.Generator().manual_seed(0)
        targets = torch.randint(2, (600,), generator=generator)
        rows = torch.randn(600, width, generator=generator).exp()
        rows[torch.arange(600), targets] += 2
        self.features = {f"{index:04d}": row for index, row in enumerate(rows)}
        self.labels = {f"{index:04d}": LABELS[target] for index, target in enumerate(targets.tolist())}
        self.taught = Taught.nothing("", width, "a", 1.0)
        self.taught.choice = Choice(0.1, 0.5, 100, 100, None, None)
        self.looked = 0

    def edit(self, first: int, last: int, *, gone: bool = False, label: int | None = None) -> None:
        digests = [f"{index:04d}" for index in range(first, last)]
        places = {
            f"id {digest}": None if gone else (digest, self.labels[digest] if label is None else label)
            for digest in digests
        }
        changes, _ = self.taught.tally.edit(places)
        assert all(isinstance(change, Change) for change in changes)
        self.taught.follow(changes, self.features)

    def head(self) -> Solved:
        there = None
        if self.taught.looks_at_samples(RECIPE):
            self.looked += 1
            there = self.features
        return self.taught.heads(RECIPE, LABELS, there)[0]

    def anew(self) -> Solved:
        """The head that all samples together give, as if nothing had been known before."""
        fresh = Taught.nothing("", self.taught.sums.width, "a", 1.0)
        contents = self.taught.tally.contents()
        fresh.tally.edit({f"id {digest}": (digest, label) for digest, label in contents.items()})
        fresh.begin_again(contents, self.features)
        scatter = fresh.sums.scatter()
        found = refined(scatter, discriminant(scatter, START), self.features, contents, steps=2, scale=0.5)
        return laid_out(found, fresh.sums.width, LABELS, scale=1.0)


def apart(one: Solved, other: Solved) -> float:
    return max(float((one.weight - other.weight).abs().max()), float((one.bias - other.bias).abs().max()))


@pytest.fixture(params=[40, 300])  # with 300 features the factor is kept, too
def pupil(request: pytest.FixtureRequest) -> Pupil:
    return Pupil(request.param)


def test_labels_that_come_alone_do_not_look_at_all_the_others_until_an_eighth_has_come(pupil: Pupil) -> None:
    pupil.edit(0, 160)
    assert apart(pupil.head(), pupil.anew()) < 1e-6
    for index in range(160, 180):
        pupil.edit(index, index + 1)
        pupil.head()
    assert pupil.looked == 1
    assert apart(pupil.head(), pupil.anew()) > 1e-6, "what the steps added is of the samples there then"
    pupil.edit(180, 181)
    assert apart(pupil.head(), pupil.anew()) < 1e-6
    assert pupil.looked == 2
    assert pupil.taught.stepped is not None
    assert pupil.taught.stepped.samples == 181


def test_a_label_alone_is_in_the_head_at_once(pupil: Pupil) -> None:
    pupil.edit(0, 160)
    before = pupil.head()
    pupil.edit(160, 161)
    after = pupil.head()
    row, place = pupil.features["0160"], LABELS.index(pupil.labels["0160"])

    def chance(solved: Solved) -> Tensor:
        return (row @ solved.weight.T + solved.bias).softmax(0)[place]

    assert chance(after) > chance(before)


@pytest.mark.parametrize("label", [None, LABELS[0]], ids=["withdrawn", "corrected"])
def test_what_goes_or_is_corrected_leaves_nothing_behind(pupil: Pupil, label: int | None) -> None:
    pupil.edit(0, 200)
    pupil.head()
    pupil.edit(7, 9, gone=label is None, label=label)
    assert apart(pupil.head(), pupil.anew()) < 1e-6
    assert pupil.looked == 2


def test_a_new_class_has_steps_taken_again(pupil: Pupil) -> None:
    pupil.edit(0, 200)
    assert pupil.head().bias[2] == MASKED
    pupil.edit(200, 201, label=LABELS[2])
    found = pupil.head()
    assert found.bias[2] > MASKED
    assert apart(found, pupil.anew()) < 1e-6


def test_a_copy_that_is_gone_back_to_has_what_it_had(pupil: Pupil) -> None:
    pupil.edit(0, 200)
    pupil.head()
    before = pupil.taught.copy()
    pupil.edit(3, 4, gone=True)
    pupil.head()
    assert before.stepped is not None
    assert before.stepped.samples == 200
    assert not before.looks_at_samples(RECIPE)


def test_a_head_without_steps_says_so(pupil: Pupil) -> None:
    pupil.edit(0, 200)
    pupil.head()
    assert pupil.taught.refined_at == 200
    pupil.taught.choice = Choice(0.9, 0.5, 200, 100, None, None)  # so strongly held that steps would do harm
    pupil.head()
    assert pupil.taught.refined_at is None


def test_without_samples_every_label_is_masked(pupil: Pupil) -> None:
    assert pupil.head().bias.tolist() == [MASKED] * 3
