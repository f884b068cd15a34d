"""The product's own worker in this process: real stores in a folder, real updates through the gate, no HTTP.

Called by the rows that show a recipe of the mission. Knows nothing of which recipe it is.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mission_data import Picture
from torch import Tensor

from app.loading import VersionLoader
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.networks.pretrained import base_weights_from
from app.networks.serialization import to_bytes
from app.recipe import NewModel, Recipe
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
from app.storage.weights import WeightStore
from worker.attempt import Stores
from worker.loop import Loop, Pace
from worker.update import Updater

SECRET = b"the same in every run".ljust(32)
_BATCH = 64
_AT_ONCE = 256


class School:
    """Models over a folder's database, taught by the worker's own loop, one round at a time."""

    def __init__(self, folder: Path, claim_limit: int = 2048) -> None:
        self.database = Database(f"sqlite:///{folder / 'perennial.db'}")
        upgrade(self.database)
        self.registry, self.intake = ModelRegistry(self.database), Intake(self.database)
        self.steering = Steering(self.database)
        self.receipts, self.weights = Receipts(self.database), WeightStore(folder / "weights")
        base = base_weights_from(self.weights.read_base, download=False)
        self.loader = VersionLoader(self.registry, self.weights, {}, base, keep=2)
        self.features = FeatureStore(self.database)
        stores = Stores(
            SampleQueue(self.database), self.registry, LineReader(self.database), self.weights, self.features
        )
        updater = Updater(stores, self.loader, device=torch.device("cpu"), lease_seconds=300)

        def perform(claim: Claim, give_way: Callable[[], None]) -> None:
            try:
                updater.perform(claim, give_way)
            except Exception as error:  # the loop would log it and try again later
                raise SystemExit(f"an update failed: {type(error).__name__}: {error}") from error

        self._loop = Loop(
            stores.queue,
            perform,
            worker="benchmark",
            stop=threading.Event(),
            keep_house=lambda: None,
            pace=Pace(lease_seconds=300, claim_limit=claim_limit),
        )

    def create(self, **body: Any) -> Model:
        """Create a model from what one would post; who is held out is the same in every run."""
        new = NewModel.model_validate(body)
        model = self.registry.create(new, "benchmark").model
        with self.database.sessions() as session, session.begin():
            session.merge(model).holdout_key = SECRET
        return self.registry.model(new.name)

    def change(self, name: str, recipe: Mapping[str, Any]) -> None:
        """Change the whole recipe."""
        self.registry.change_recipe(name, Recipe.model_validate(dict(recipe)), "benchmark")

    def add_weights(self, tensors: Mapping[str, Tensor]) -> str:
        """Bring base weights in; the answer names them."""
        return self.weights.add_base(to_bytes(tensors))

    def teach(self, name: str, pictures: Sequence[Picture], labels: Sequence[str]) -> None:
        """Post labels and have the worker learn until nothing is due."""
        self.post(name, pictures, labels)
        self.work()
        if self.states(name).get("queued"):  # they wait for company that will not come
            self.steering.request_run(name, reason="no more labels come", actor="benchmark")
            self.work()

    def post(self, name: str, pictures: Sequence[Picture], labels: Sequence[str]) -> None:
        model = self.registry.model(name)
        for start in range(0, len(pictures), _AT_ONCE):
            items = [
                NewSample(one.content, labels[one.label], client_id=str(one.place), source="benchmark")
                for one in pictures[start : start + _AT_ONCE]
            ]
            for answer in self.intake.put(model, items, "benchmark"):
                if not isinstance(answer, Accepted):
                    raise SystemExit(f"a label was not taken: {answer}")

    def refine(self, name: str) -> Version:
        """Perform one slow update; the version it made."""
        self.steering.request_run(name, reason="shared layers follow", actor="benchmark", slow=True)
        self.work()
        return self.versions(name)[0]

    def work(self) -> None:
        """Let the worker's loop go on while it finds something due; an update that fails ends the row."""
        while self._loop.round():
            pass

    def versions(self, name: str) -> list[Version]:
        """Newest first."""
        return self.registry.versions(self.registry.model(name).id, None, 1000)

    def live(self, name: str) -> Version:
        return self.registry.live(self.registry.model(name).id).version

    def network(self, name: str) -> Network:
        return self.loader.load(self.live(name))

    def answers(self, name: str, pictures: Sequence[Picture], labels: Sequence[str]) -> Tensor:
        """What live answers, (n,) places in `labels`; −1 where it knows no class."""
        network = self.network(name)
        names = {label.id: label.name for label in self.registry.labels(self.registry.model(name).id)}
        places = [labels.index(names[label]) for label in network.spec.labels]
        if not places:
            return torch.full((len(pictures),), -1)
        preprocessor = preprocessor_for(network.spec)
        rows = []
        with torch.inference_mode():
            for start in range(0, len(pictures), _BATCH):
                items = [preprocessor.decode(one.content) for one in pictures[start : start + _BATCH]]
                rows.append(network(preprocessor.batch(items)).argmax(1))
        return torch.tensor(places)[torch.cat(rows)]

    def accuracy(self, name: str, pictures: Sequence[Picture], labels: Sequence[str]) -> float:
        """Percent of the pictures answered right, by what they truly are."""
        truth = torch.tensor([one.truth for one in pictures])
        return round(100 * float((self.answers(name, pictures, labels) == truth).float().mean()), 2)

    def states(self, name: str) -> dict[str, int]:
        """How many samples are in which state."""
        found = [str(one.sample.state) for one in self.receipts.list(self.registry.model(name), limit=1_000_000)]
        return {state: found.count(state) for state in sorted(set(found))}

    def verdicts(self, name: str) -> dict[str, int]:
        found = [str(version.verdict) for version in self.versions(name) if version.number > 1]
        return {verdict: found.count(verdict) for verdict in sorted(set(found))}


@contextmanager
def school(claim_limit: int = 2048) -> Iterator[School]:
    """A school in a folder of its own, which goes with it."""
    with tempfile.TemporaryDirectory(prefix="perennial-bench-") as folder:
        found = School(Path(folder), claim_limit)
        try:
            yield found
        finally:
            found.database.close()


def refusals(teaching: School, name: str) -> list[str]:
    """Why versions were not promoted, the newest few."""
    return [version.reason for version in teaching.versions(name) if version.verdict != "promoted"][:4]
