"""A recipe is spelled in full or by a name; one that contradicts itself says which field, and what to do."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from app.ingredients import L2SP, SLDA, Ridge, Schedule, Softmax
from app.named_recipes import ABOUT, NAMED
from app.recipe import FeaturesInput, ImageInput, NetworkChoice, NewModel, Recipe, misfits

PICTURES = ImageInput(size=32)
NUMBERS = FeaturesInput(size=4)
RIDGE = {"kind": "ridge"}


def read(value: Any) -> Recipe:
    return Recipe.model_validate_json(json.dumps(value), strict=True)


@pytest.mark.parametrize("name", NAMED)
def test_a_named_recipe_is_whole_by_its_name_alone(name: str) -> None:
    recipe = read(name)

    assert recipe.based_on == name
    assert recipe == read({"based_on": name}) == Recipe.model_validate(name)
    assert ABOUT[name]


@pytest.mark.parametrize("name", NAMED)
def test_a_recipe_that_was_saved_is_the_same_when_it_is_read(name: str) -> None:
    recipe = read(name)

    assert read(recipe.model_dump(mode="json")) == recipe
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_what_stands_beside_a_name_changes_it_part_by_part() -> None:
    recipe = read({"based_on": "fine-tune", "optimizer": {"lr": 0.5}, "schedule": {"samples": None, "seconds": 60}})

    assert recipe.optimizer.lr == 0.5
    assert recipe.optimizer.backbone_lr == 0.003
    assert recipe.schedule == Schedule(samples=None, seconds=60)
    assert recipe.memory.capacity == 10_000


def test_a_part_of_another_kind_takes_nothing_from_the_named_one() -> None:
    recipe = read({"based_on": "drift", "head": {"kind": "ridge"}})

    assert recipe.head == Ridge()


def test_a_recipe_that_takes_no_gradient_steps_has_no_penalties_unless_it_names_them() -> None:
    assert read({"head": RIDGE, "trainable": "head"}).penalties == ()
    assert Recipe(head=Ridge(), trainable="head").penalties == ()
    assert read({"head": RIDGE}).penalties == (L2SP(),)
    assert not read("frozen-backbone").steps
    assert read("fine-tune").steps
    assert read({"trainable": "head"}).steps


@pytest.mark.parametrize(("pretrained", "name"), [(None, "from-scratch"), ("imagenet", "frozen-backbone")])
def test_a_model_without_a_recipe_gets_the_one_for_its_weights(pretrained: str | None, name: str) -> None:
    body = {"name": "m", "input": {"kind": "image", "size": 32}, "network": {"weights": pretrained}}

    assert NewModel.model_validate_json(json.dumps(body), strict=True).recipe.based_on == name
    assert NewModel.model_validate_json(json.dumps({**body, "recipe": None}), strict=True).recipe.based_on == name


def test_a_model_may_be_given_a_recipe_by_its_name() -> None:
    body = {"name": "m", "input": {"kind": "features", "size": 4}, "recipe": "drift"}

    assert NewModel.model_validate_json(json.dumps(body), strict=True).recipe == read("drift")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("frozen", "'frozen-backbone', 'from-scratch', 'drift' or 'fine-tune'"),
        ({"based_on": "frozen"}, "'frozen-backbone', 'from-scratch', 'drift' or 'fine-tune'"),
        ({"based_on": ["drift"]}, "'frozen-backbone', 'from-scratch', 'drift' or 'fine-tune'"),
        ({"based_on": "drift", "head": 5}, "head"),
        (5, "one of the names 'frozen-backbone'"),
        ([], "one of the names 'frozen-backbone'"),
    ],
)
def test_what_is_no_recipe_is_told_what_would_be_one(value: Any, words: str) -> None:
    with pytest.raises(ValidationError) as told:
        read(value)

    assert words in str(told.value)


@pytest.mark.parametrize("kind", ["ridge", "slda"])
@pytest.mark.parametrize("power", [0, -0.5, 1.5, float("inf"), "sqrt"])
def test_a_power_is_a_share_of_one(kind: str, power: Any) -> None:
    with pytest.raises(ValidationError, match=rf"head\.{kind}\.power"):
        Recipe.model_validate({"head": {"kind": kind, "power": power}})
    assert (
        read({"head": {"kind": kind, "power": 0.5}}).head
        == Recipe.model_validate({"head": {"kind": kind, "power": 0.5}}).head
    )


def test_a_recipe_saved_before_there_were_powers_and_refinement_has_neither() -> None:
    saved = read("frozen-backbone").model_dump(mode="json")
    del saved["head"]["power"], saved["head"]["refinement"]
    kept = {name: value for name, value in saved.items() if name != "based_on"}
    assert read(kept).head == SLDA()


CONTRADICTIONS: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "a penalty twice",
        {"penalties": [{"kind": "l2_sp"}, {"kind": "l2_sp", "strength": 1}]},
        "penalties",
        "list it once",
    ),
    (
        "an own penalty twice",
        {"penalties": [{"kind": "own", "name": "mine"}, {"kind": "own", "name": "mine"}]},
        "penalties",
        "'mine' stands twice",
    ),
    (
        "logits of samples that are not kept",
        {"rehearsal": {"kind": "der_pp"}, "memory": {"capacity": 0}},
        "rehearsal",
        "raise the capacity",
    ),
    (
        "a rehearsal of gradient steps for a head that is solved",
        {"head": RIDGE, "rehearsal": {"kind": "er_ace"}},
        "rehearsal",
        "choose head 'softmax'",
    ),
    (
        "a penalty on a frozen backbone",
        {"trainable": "head", "penalties": [{"kind": "l2_sp", "anchor": "pretrained"}]},
        "penalties",
        "or anchor 'previous'",
    ),
    (
        "a penalty where nothing moves",
        {"head": RIDGE, "trainable": "head", "penalties": [{"kind": "ewc"}]},
        "penalties",
        "takes no gradient steps",
    ),
    (
        "steps over all samples where older ones fade",
        {"head": {"kind": "slda", "refinement": 2, "forgetting": 0.99}, "trainable": "head"},
        "head.refinement",
        "choose refinement 0 or forgetting 1",
    ),
    ("dropout where nothing moves", {"based_on": "frozen-backbone", "dropout": 0.5}, "dropout", "dropout 0"),
    (
        "fusion where nothing moves",
        {"based_on": "frozen-backbone", "fusion": {"interpolation": 0.5}},
        "fusion.interpolation",
        "fusion.interpolation 1",
    ),
    (
        "a schedule where nothing moves",
        {"based_on": "frozen-backbone", "schedule": {"seconds": 60}},
        "schedule",
        "choose trainable 'last_blocks'",
    ),
    (
        "a rate for what is frozen",
        {"trainable": "head", "optimizer": {"kind": "sgd", "backbone_lr": 0.1}},
        "optimizer.backbone_lr",
        "leave it out",
    ),
    (
        "augmentation of stored features",
        {"trainable": "head", "augmentation": {"flip": True}},
        "augmentation",
        "computed once",
    ),
    (
        "a schedule without a memory",
        {"schedule": {"seconds": 60}, "memory": {"capacity": 0}},
        "schedule",
        "raise the capacity",
    ),
    (
        "a backbone that learns from nothing",
        {"head": RIDGE, "memory": {"capacity": 0}},
        "memory.capacity",
        "or choose trainable 'head'",
    ),
    ("nothing left to learn from", {"holdout": 0.5, "test": 0.4}, "test", "lower one of them"),
]


@pytest.mark.parametrize(("what", "recipe", "field", "remedy"), CONTRADICTIONS, ids=[one[0] for one in CONTRADICTIONS])
def test_a_recipe_that_contradicts_itself_names_the_field_and_the_remedy(
    what: str, recipe: dict[str, Any], field: str, remedy: str
) -> None:
    with pytest.raises(ValidationError) as told:
        read(recipe)

    (error,) = told.value.errors()
    words = error["msg"].removeprefix("Value error, ")
    assert words.startswith(f"{field}:")
    assert remedy in words


def test_every_contradiction_is_told_at_once() -> None:
    with pytest.raises(ValidationError) as told:
        read({"based_on": "fine-tune", "trainable": "head", "fusion": {"interpolation": 0.7}})

    words = told.value.errors()[0]["msg"]
    assert "penalties, fusion.interpolation, schedule: a closed-form head" in words
    assert "; and optimizer.backbone_lr: trainable 'head'" in words


@pytest.mark.parametrize(
    ("recipe", "shape", "weights", "words"),
    [
        ({"augmentation": {"flip": True}}, NUMBERS, None, "recipe.augmentation: crops and flips are for pictures"),
        ({"augmentation": {"crop": 17}}, PICTURES, None, "recipe.augmentation.crop: 17 pixels"),
        (
            {"penalties": [{"kind": "l2_sp", "anchor": "pretrained"}]},
            PICTURES,
            None,
            "recipe.penalties: l2_sp with anchor 'pretrained' needs pretrained weights",
        ),
    ],
)
def test_a_recipe_that_input_or_network_cannot_follow_names_the_field(
    recipe: dict[str, Any], shape: ImageInput | FeaturesInput, weights: str | None, words: str
) -> None:
    (found,) = misfits(read(recipe), shape, NetworkChoice(weights=weights))

    assert found.startswith(words)


def test_what_fits_is_not_complained_of() -> None:
    recipe = read({"augmentation": {"crop": 4, "flip": True}, "penalties": [{"kind": "l2_sp", "anchor": "pretrained"}]})

    assert misfits(recipe, PICTURES, NetworkChoice(weights="imagenet")) == []
    assert isinstance(recipe.head, Softmax)


@pytest.mark.parametrize("name", NAMED)
def test_named_recipes_fit_every_input_with_and_without_pretrained_weights(name: str) -> None:
    for shape in (PICTURES, NUMBERS):
        for weights in (None, "imagenet"):
            assert misfits(read(name), shape, NetworkChoice(weights=weights)) == []
