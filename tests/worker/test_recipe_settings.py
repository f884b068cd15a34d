"""How recipes are told to the learner."""

from typing import Any

import pytest

from app.named_recipes import NAMED
from app.recipe import Recipe
from worker.learning.augmentation import AugmentationSettings
from worker.learning.optimizers import OPTIMIZERS, OptimizerSettings
from worker.learning.penalties import PENALTIES
from worker.learning.penalty import PenaltySettings
from worker.learning.rehearsal_losses import REHEARSAL_LOSSES
from worker.learning.settings import LearnerSettings, RehearsalSettings
from worker.learning.trainable import TRAINABLE
from worker.recipe_settings import COLD_SAMPLES, learner_settings


def settings(learned_before: int = 1000, **recipe: Any) -> LearnerSettings:
    return learner_settings(Recipe(**recipe), learned_before=learned_before, pretrained=True, seed=7)


def test_every_field_of_a_recipe_reaches_the_learner() -> None:
    told = settings(
        trainable="last_blocks",
        blocks=3,
        penalties=[
            {"kind": "l2_sp", "anchor": "pretrained", "strength": 0.1, "head_strength": 0.2},
            {"kind": "ewc", "strength": 5, "decay": 0.9, "samples": 50},
            {"kind": "lwf", "strength": 2, "temperature": 3},
            {"kind": "own", "name": "mine", "strength": 4},
        ],
        rehearsal={"kind": "der_pp", "alpha": 0.2, "beta": 0.7},
        optimizer={"kind": "adamw", "lr": 0.002, "weight_decay": 0.3, "backbone_lr": 0.0001},
        augmentation={"crop": 4, "flip": True},
        dropout=0.3,
        fusion={"averaging": 0.5, "interpolation": 0.6},
        batch_size=64,
        early_stopping={"fold": 0.2, "patience": 4, "passes": 9},
    )
    assert told == LearnerSettings(
        optimizer=OptimizerSettings("adamw", lr=0.002, momentum=0.0, weight_decay=0.3, backbone_lr=0.0001),
        penalties=(
            PenaltySettings("l2_sp", 0.1, anchor="pretrained", head_strength=0.2),
            PenaltySettings("ewc", 5.0, decay=0.9, samples=50),
            PenaltySettings("lwf", 2.0, temperature=3.0),
            PenaltySettings("own", 4.0, name="mine"),
        ),
        rehearsal=RehearsalSettings("der_pp", 0.2, 0.7),
        trainable="last_blocks",
        blocks=3,
        augmentation=AugmentationSettings(4, flip=True),
        dropout=0.3,
        batch_size=64,
        passes=9,
        patience=4,
        fold=0.2,
        averaging=0.5,
        interpolation=0.6,
        batch_statistics=False,
        seed=7,
    )


def test_the_defaults_of_a_recipe_are_the_learners_own() -> None:
    assert learner_settings(Recipe(), learned_before=1000, pretrained=False, seed=0) == LearnerSettings(
        batch_statistics=True
    )


@pytest.mark.parametrize("name", NAMED)
def test_recipes_with_a_name_use_what_the_catalogs_have(name: str) -> None:
    told = settings(based_on=name)
    assert told.optimizer.kind in OPTIMIZERS
    assert told.rehearsal.kind in REHEARSAL_LOSSES
    assert told.trainable in TRAINABLE
    assert all(penalty.kind in PENALTIES for penalty in told.penalties)


def test_a_young_model_learns_longer() -> None:
    assert settings(COLD_SAMPLES - 1).passes == 3 * settings(COLD_SAMPLES).passes
    assert settings(COLD_SAMPLES - 1).patience == 3 * settings(COLD_SAMPLES).patience


def test_what_was_never_taught_holds_nothing_back() -> None:
    penalties = [{"kind": "l2_sp"}, {"kind": "lwf"}, {"kind": "ewc"}, {"kind": "own", "name": "mine"}]
    told = settings(0, penalties=penalties, fusion={"interpolation": 0.5})
    assert [penalty.kind for penalty in told.penalties] == ["ewc", "own"]
    assert told.interpolation == 1.0
    held = settings(0, penalties=[{"kind": "l2_sp", "anchor": "pretrained"}])
    assert [penalty.kind for penalty in held.penalties] == ["l2_sp"]
