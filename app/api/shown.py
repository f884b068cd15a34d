"""How models and versions look on the wire; several routes show them."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.api.deps import Parts
from app.api.schemas.models import ModelAnswer, QueueAnswer
from app.api.schemas.versions import PrequentialAnswer, TestAnswer, VersionAnswer
from app.batching import Batching
from app.storage.states import ArtifactKind, LabelState
from app.storage.tables import Model, Version


def shown_model(parts: Parts, model: Model) -> ModelAnswer:
    """Describe a model as it stands now."""
    live = parts.registry.live(model.id)
    labels = parts.registry.labels(model.id)
    depth = parts.receipts.depth(model.id)
    return ModelAnswer(
        name=model.name,
        live=live.version.number,
        epoch=live.epoch,
        labels=[label.name for label in labels if label.state == LabelState.ACTIVE],
        proposed_labels=[label.name for label in labels if label.state == LabelState.PROPOSED],
        queue=QueueAnswer(queued=depth.queued, oldest_seconds=depth.oldest_seconds),
        accuracy=share_of(live.version.metrics),
        test=test_of(live.version.metrics),
        prequential=prequential_of(live.version.metrics),
        pinned=model.pinned,
        learning=not model.paused,
        input=model.input,
        network=model.network,
        recipe=model.recipe,
        batching=Batching.model_validate(model.batching),
        family=_family(parts, model),
        recipe_number=model.recipe_number,
        created_at=model.created_at,
    )


def shown_versions(parts: Parts, model: Model, versions: Sequence[Version]) -> list[VersionAnswer]:
    """Describe versions of one model."""
    live = parts.registry.live(model.id).version.id
    names = {label.id: label.name for label in parts.registry.labels(model.id)}
    counts = parts.registry.counts([version.id for version in versions])
    numbers = {version.id: version.number for version in versions}
    answers = []
    for version in versions:
        parent = version.parent_id
        if parent is not None and parent not in numbers:
            numbers[parent] = parts.registry.version_by_id(parent).number
        weights = parts.registry.artifacts(version.id).get(ArtifactKind.WEIGHTS)
        answers.append(
            VersionAnswer(
                version=version.number,
                id=version.id,
                parent=None if parent is None else numbers[parent],
                live=version.id == live,
                delta=version.base_id is not None,
                verdict=version.verdict,
                reason=version.reason,
                accuracy=share_of(version.metrics),
                test=test_of(version.metrics),
                prequential=prequential_of(version.metrics),
                metrics=_without_state(version.metrics),
                counts={"learn": 0, "holdout": 0, **counts.get(version.id, {})},
                digest=None if weights is None else f"sha256:{weights.sha256}",
                files=version.files,
                network={key: version.spec.get(key) for key in ("architecture", "weights", "seed")},
                labels=[names.get(label, str(label)) for label in version.spec["labels"]],
                recipe_number=version.recipe_number,
                created_at=version.created_at,
            )
        )
    return answers


def _family(parts: Parts, model: Model) -> str | None:
    if model.family_id is None:
        return None
    return next(family.name for family, _ in parts.registry.families() if family.id == model.family_id)


def _without_state(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics without what the next update goes on from: it is no figure, and changes its form."""
    prequential = metrics.get("prequential")
    if not isinstance(prequential, dict):
        return metrics
    return {**metrics, "prequential": {name: value for name, value in prequential.items() if name != "state"}}


def share_of(metrics: Mapping[str, Any]) -> float | None:
    """The accuracy that was recorded beside `metrics`' other figures, where one was."""
    accuracy = metrics.get("accuracy")
    return accuracy if isinstance(accuracy, int | float) else None


def test_of(metrics: Mapping[str, Any]) -> TestAnswer | None:
    """What a version recorded of the test split."""
    test = metrics.get("test")
    return TestAnswer(accuracy=share_of(test), n=test.get("n", 0)) if isinstance(test, dict) else None


def prequential_of(metrics: Mapping[str, Any]) -> PrequentialAnswer | None:
    """What a version recorded of the line's answers to samples before it learned them."""
    found = metrics.get("prequential")
    return PrequentialAnswer.model_validate(found) if isinstance(found, dict) else None
