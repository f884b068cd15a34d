"""How the learner is to learn, from how the recipe says it.

Called by teaching. The one place that knows both languages: a field that a recipe gains is translated here.
"""

from app.ingredients import EWC, L2SP, SGD, DERpp, LwF, OwnPenalty, Penalty, Softmax
from app.recipe import FeaturesInput, ImageInput, Recipe
from worker.learning.augmentation import AugmentationSettings
from worker.learning.optimizers import OptimizerSettings
from worker.learning.penalty import PenaltySettings
from worker.learning.settings import LearnerSettings, RehearsalSettings

COLD_SAMPLES = 100  # learned samples up to which learning takes its time
COLD_PATIENCE = 3  # times the recipe's passes and patience while cold


def learner_settings(recipe: Recipe, *, learned_before: int, pretrained: bool, seed: int) -> LearnerSettings:
    """Translate a recipe for a model that has learned so many samples; `pretrained` if it began from weights."""
    optimizer, stopping, rehearsal = recipe.optimizer, recipe.early_stopping, recipe.rehearsal
    cold = COLD_PATIENCE if learned_before < COLD_SAMPLES else 1
    taught = learned_before > 0
    return LearnerSettings(
        optimizer=OptimizerSettings(
            kind=optimizer.kind,
            lr=optimizer.lr,
            momentum=optimizer.momentum if isinstance(optimizer, SGD) else 0.0,
            weight_decay=optimizer.weight_decay,
            backbone_lr=optimizer.backbone_lr,
        ),
        penalties=tuple(_penalty(one) for one in recipe.penalties if taught or _holds_untaught(one)),
        rehearsal=(
            RehearsalSettings(rehearsal.kind, rehearsal.alpha, rehearsal.beta)
            if isinstance(rehearsal, DERpp)
            else RehearsalSettings(rehearsal.kind)
        ),
        trainable=recipe.trainable,
        blocks=recipe.blocks,
        augmentation=AugmentationSettings(recipe.augmentation.crop, recipe.augmentation.flip),
        dropout=recipe.dropout,
        batch_size=recipe.batch_size,
        passes=stopping.passes * cold,
        patience=stopping.patience * cold,
        fold=stopping.fold,
        averaging=recipe.fusion.averaging,
        # Half of what was never taught is no better than none of it.
        interpolation=recipe.fusion.interpolation if taught else 1.0,
        batch_statistics=not pretrained,
        seed=seed,
    )


def feeding(recipe: Recipe, shape: ImageInput | FeaturesInput) -> tuple[float | None, int]:
    """Give the power and the projection that the recipe wants before a solved head; None and 0 are none.

    Vectors of numbers came as somebody meant them, and few may be all there are: they are left as they are.
    """
    head = recipe.head
    if isinstance(head, Softmax):
        return None, 0
    return head.power if isinstance(shape, ImageInput) else None, head.projection


def _holds_untaught(penalty: Penalty) -> bool:
    """Whether a penalty means something before anything was learned: own weights and answers are nothing to hold yet.

    EWC holds nothing then either, but what the first samples taught is measured for the next update.
    """
    if isinstance(penalty, L2SP):
        return penalty.anchor == "pretrained"
    return isinstance(penalty, EWC | OwnPenalty)


def _penalty(penalty: Penalty) -> PenaltySettings:
    if isinstance(penalty, L2SP):
        return PenaltySettings(
            penalty.kind, penalty.strength, anchor=penalty.anchor, head_strength=penalty.head_strength
        )
    if isinstance(penalty, EWC):
        return PenaltySettings(penalty.kind, penalty.strength, decay=penalty.decay, samples=penalty.samples)
    if isinstance(penalty, LwF):
        return PenaltySettings(penalty.kind, penalty.strength, temperature=penalty.temperature)
    return PenaltySettings(penalty.kind, penalty.strength, name=penalty.name)
