"""A model of handwritten digits over real stores on a real SQLite file, and the steps that tests of updates take."""

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import event
from torch import Tensor

from app.loading import VersionLoader
from app.networks.features import features_content
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.recipe import FeaturesInput, ImageInput, NetworkChoice, NewModel, Recipe
from app.storage.claims import Claim
from app.storage.database import Database
from app.storage.features import FeatureStore
from app.storage.intake import Accepted, Intake, NewSample
from app.storage.line import LineReader
from app.storage.migrate import upgrade
from app.storage.queue import SampleQueue
from app.storage.receipts import Receipts
from app.storage.registry import ModelRegistry
from app.storage.steering import Steering
from app.storage.tables import Model, Version
from app.storage.triggers import claiming_lane
from app.storage.weights import WeightStore
from tests.device import TEST_DEVICE
from worker.attempt import Stores
from worker.update import Updater

SECRET = b"the same in every run".ljust(32)
UNTAUGHT = 400  # the last digits are never posted


@dataclass
class Digits:
    """scikit-learn's 1,797 digits of 8 × 8 pixels, shuffled once."""

    pictures: Tensor = field(init=False)  # (1797, 64), 0 to 16
    labels: list[int] = field(init=False)

    def __post_init__(self) -> None:
        datasets = pytest.importorskip("sklearn.datasets")
        pictures, labels = datasets.load_digits(return_X_y=True)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        self.pictures = torch.tensor(pictures, dtype=torch.float32)[order]
        self.labels = torch.tensor(labels)[order].tolist()


class School:
    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder / 'perennial.db'}")
        upgrade(self.database)
        self.registry = ModelRegistry(self.database)
        self.steering = Steering(self.database)
        self.intake = Intake(self.database)
        self.receipts = Receipts(self.database)
        self.queue = SampleQueue(self.database)
        self.line = LineReader(self.database)
        self.features = FeatureStore(self.database)
        self.weights = WeightStore(folder / "weights")
        self.weights_folder = folder / "weights"
        self.loader = VersionLoader(self.registry, self.weights, {}, lambda source: {})
        self.digits = Digits()

    def create(
        self, name: str = "digits", labels: Sequence[str] = (), *, architecture: str = "mlp", **recipe: Any
    ) -> Model:
        pictures = architecture == "small_cnn"
        new = NewModel(
            name=name,
            input=ImageInput(size=8, channels=1) if pictures else FeaturesInput(size=64),
            network=NetworkChoice(architecture=architecture),
            labels=tuple(labels),
            recipe=Recipe.model_validate({"new_classes": {"policy": "accept"}, **recipe}),
        )
        model = self.registry.create(new, "tester").model
        with self.database.sessions() as session, session.begin():
            # The same secret in every run, so that sides and rehearsal are the same too.
            session.merge(model).holdout_key = SECRET
        return self.registry.model(name)

    def change_recipe(self, model: Model, **recipe: Any) -> Model:
        return self.registry.change_recipe(
            model.name, Recipe.model_validate({"new_classes": {"policy": "accept"}, **recipe}), "tester"
        )

    def content(self, model: Model, index: int) -> bytes:
        """A digit as a model takes it: numbers, or a PNG."""
        picture = self.digits.pictures[index]
        if model.input["kind"] == "features":
            return features_content(picture.tolist())
        written = io.BytesIO()
        Image.fromarray((picture.reshape(8, 8) * 15).to(torch.uint8).numpy()).save(written, "PNG")
        return written.getvalue()

    def post(self, model: Model, indices: Sequence[int], shift: int = 0, split: str | None = None) -> list[str]:
        """Post digits with their labels, or with labels shifted by some."""
        items = [
            NewSample(
                content=self.content(model, index),
                label=str((self.digits.labels[index] + shift) % 10),
                source="shifted" if shift else "school",
                split=split,
            )
            for index in indices
        ]
        answers = self.intake.put(model, items, "tester")
        assert all(isinstance(answer, Accepted) for answer in answers), answers
        return [answer.id for answer in answers if isinstance(answer, Accepted)]

    def claim(self, model: Model, lease_seconds: float = 60) -> Claim:
        lane = claiming_lane(Recipe.model_validate(self.registry.model(model.name).recipe))
        claim = self.queue.claim(model.id, worker="w1", lease_seconds=lease_seconds, limit=2048, lane=lane)
        assert claim is not None
        return claim

    def begin(self, model: Model) -> Claim:
        """Begin an update that claims nothing."""
        claim = self.queue.begin(model.id, worker="w1", lease_seconds=60)
        assert claim is not None
        return claim

    def updater(self, stopping: Callable[[], bool] = lambda: False, lease_seconds: float = 60) -> Updater:
        stores = Stores(self.queue, self.registry, self.line, self.weights, self.features)
        return Updater(
            stores, self.loader, device=torch.device(TEST_DEVICE), lease_seconds=lease_seconds, stopping=stopping
        )

    def learn(self, model: Model, updater: Updater | None = None) -> Version:
        """Perform one update over all that waits; the version it made. Without an updater by a worker just started."""
        (updater or self.updater()).perform(self.claim(model))
        return self.newest(model)

    def refine(
        self, model: Model, updater: Updater | None = None, beside: Callable[[], None] = lambda: None
    ) -> Version:
        """Perform one slow update; `beside` is called between its steps."""
        (updater or self.updater()).perform(self.begin(model), beside)
        return self.newest(model)

    def newest(self, model: Model) -> Version:
        return self.registry.versions(model.id, None, 1)[0]

    def live(self, model: Model) -> Version:
        return self.registry.live(model.id).version

    def network(self, model: Model) -> Network:
        return self.loader.load(self.live(model))

    def accuracy(self, model: Model) -> float:
        """Of the live version on digits that were never posted."""
        network = self.network(model)
        names = {label.id: label.name for label in self.registry.labels(model.id)}
        batch = preprocessor_for(network.spec).batch(list(self.digits.pictures[-UNTAUGHT:]))
        with torch.inference_mode():
            rows = network(batch).argmax(1).tolist()
        predicted = [names[network.spec.labels[row]] for row in rows]
        right = sum(p == str(label) for p, label in zip(predicted, self.digits.labels[-UNTAUGHT:], strict=True))
        return right / UNTAUGHT

    def state(self, model: Model, sample_id: str) -> str:
        return self.receipts.get(model, sample_id).sample.state

    def close(self) -> None:
        self.database.close()


Statements = list[tuple[str, Any]]


@contextmanager
def asked(school: School) -> Iterator[Statements]:
    """What the database is asked in the block: statements with their parameters."""
    statements: Statements = []

    def note(_c: object, _r: object, statement: str, parameters: Any, _x: object, _m: object) -> None:
        statements.append((statement, parameters))

    event.listen(school.database.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(school.database.engine, "before_cursor_execute", note)


def inputs_read(statements: Statements) -> int:
    """How many samples' inputs were asked for."""
    return sum(len(parameters) for statement, parameters in statements if "FROM payloads" in statement)


class Countdown:
    """Says yes from the given call on, and does something first when it does."""

    def __init__(self, calls: int, then: Callable[[], object] = lambda: None) -> None:
        self.calls, self.then, self.said = calls, then, threading.Event()

    def __call__(self) -> bool:
        self.calls -= 1
        if self.calls == 0:
            self.then()
            self.said.set()
        return self.said.is_set()
