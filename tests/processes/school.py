"""A tiny task for real workers: two classes that a network learns in no time, and what must hold afterwards."""

import random
from collections import Counter

from sqlalchemy import func, select

from app.networks.features import features_content
from app.recipe import FeaturesInput, NetworkChoice, NewModel, Recipe
from app.storage.intake import Accepted, NewSample
from app.storage.tables import Model, Revision, Sample, Update
from app.storage.weights import WeightStore
from tests.app.storage.invariants import check
from tests.app.storage.stores import Stores

SIZE = 4


def create(stores: Stores, name: str = "tiny", **recipe: object) -> Model:
    """A model of two labels, `low` and `high`, that learns as soon as eight samples wait."""
    settings = {"trigger": {"samples": 8, "seconds": 0.2}, "early_stopping": {"passes": 3}, **recipe}
    new = NewModel(
        name=name,
        input=FeaturesInput(size=SIZE),
        network=NetworkChoice(architecture="mlp"),
        labels=("low", "high"),
        recipe=Recipe.model_validate(settings),
    )
    return stores.registry.create(new, "tester").model


def samples(count: int, seed: int = 0) -> list[NewSample]:
    """Vectors around 0 labelled `low` and around 10 labelled `high`, half each."""
    numbers = random.Random(seed)
    return [
        NewSample(
            content=features_content([numbers.gauss(10.0 * (index % 2), 1.0) for _ in range(SIZE)]),
            label=("low", "high")[index % 2],
            client_id=f"{seed}-{index}",
        )
        for index in range(count)
    ]


def post(stores: Stores, model: Model, items: list[NewSample]) -> list[str]:
    answers = stores.intake.put(model, items, "tester")
    ids = [answer.id for answer in answers if isinstance(answer, Accepted)]
    assert len(ids) == len(items)
    return ids


def settled(stores: Stores, model: Model) -> bool:
    """Whether nothing waits and nothing runs."""
    with stores.database.sessions() as session:
        states = set(session.scalars(select(Revision.state).where(Revision.model_id == model.id).distinct()))
        running = session.scalar(select(func.count()).select_from(Update).where(Update.state == "running"))
    return not states & {"queued", "claimed"} and not running


def states(stores: Stores, model: Model) -> Counter[str]:
    with stores.database.sessions() as session:
        return Counter(session.scalars(select(Sample.state).where(Sample.model_id == model.id)))


def check_nothing_lost(stores: Stores, model: Model, acknowledged: list[str], weights: WeightStore) -> None:
    """Every acknowledged sample is stored once, each revision is learned at most once into the line, files verify."""
    check(stores.database, model.id)
    with stores.database.sessions() as session:
        stored = list(session.scalars(select(Sample.id).where(Sample.model_id == model.id)))
    assert sorted(stored) == sorted(acknowledged)
    for version_id in stores.registry.line(stores.registry.live(model.id).version.id):
        for artifact in stores.registry.artifacts(version_id).values():
            weights.read(version_id, artifact)
