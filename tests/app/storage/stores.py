"""All stores over one database, and the steps that most storage tests take."""

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput, NetworkChoice, NewModel, Recipe
from app.storage.claims import Claim, Outcome
from app.storage.database import Database
from app.storage.intake import Accepted, Intake, NewSample
from app.storage.line import LineReader
from app.storage.queue import SampleQueue
from app.storage.receipts import Receipts
from app.storage.registry import Live, ModelRegistry
from app.storage.servers import ServerRoster
from app.storage.states import ArtifactKind, Verdict
from app.storage.steering import Steering
from app.storage.tables import Model, Update, Version
from app.storage.weights import WeightStore


@dataclass
class Stores:
    """All stores over one database, and the few steps that most tests take."""

    database: Database
    registry: ModelRegistry
    steering: Steering
    intake: Intake
    receipts: Receipts
    queue: SampleQueue
    line: LineReader
    weights: WeightStore
    roster: ServerRoster

    def create(self, **recipe: object) -> Live:
        return self.registry.create(
            NewModel(
                name="digits",
                input=FeaturesInput(size=4),
                network=NetworkChoice(architecture="mlp"),
                labels=("a", "b"),
                recipe=Recipe.model_validate(recipe),
            ),
            "tester",
        )

    def post(self, model: Model, *items: NewSample) -> list[str]:
        answers = self.intake.put(model, items, "tester")
        assert all(isinstance(answer, Accepted) for answer in answers), answers
        return [answer.id for answer in answers if isinstance(answer, Accepted)]

    def claim(self, model: Model, lease_seconds: float = 60, worker: str = "w1") -> Claim:
        claim = self.queue.claim(model.id, worker=worker, lease_seconds=lease_seconds, limit=1000)
        assert claim is not None
        return claim

    def outcome(
        self, claim: Claim, verdict: Verdict = Verdict.PROMOTED, held_out: frozenset[int] = frozenset()
    ) -> Outcome:
        version_id = str(uuid.uuid4())
        return Outcome(
            version_id=version_id,
            spec=NetworkSpec.from_json(claim.parent.spec),
            verdict=verdict,
            reason="because",
            metrics={},
            weights=self.weights.write(version_id, ArtifactKind.WEIGHTS, b"weights of " + version_id.encode()),
            held_out=held_out,
        )

    def learn(self, model: Model, verdict: Verdict = Verdict.PROMOTED) -> Version:
        claim = self.claim(model)
        return self.queue.commit(claim, self.outcome(claim, verdict))

    def state(self, model: Model, sample_id: str) -> str:
        return self.receipts.get(model, sample_id).sample.state

    def remembered(self, model: Model, capacity: int = 10, exclude: Collection[str] = frozenset()) -> list[bytes]:
        """The contents of the memory, sorted."""
        stored = self.line.memory(model, capacity, exclude)
        return sorted(self.line.contents([one.sample_id for one in stored]).values())

    def claimed(self, claim: Claim) -> list[bytes]:
        """The contents of a claim, in its order."""
        contents = self.line.contents([revision.sample_id for revision in claim.revisions])
        return [contents[revision.sample_id] for revision in claim.revisions]

    def failures(self, model: Model) -> int:
        """How many updates of the model failed."""
        with self.database.sessions() as session:
            query = select(func.count()).select_from(Update)
            return session.execute(query.where(Update.model_id == model.id, Update.state == "failed")).scalar_one()


def open_stores(url: str, folder: Path) -> Stores:
    """Stores over a migrated database."""
    database = Database(url)
    return Stores(
        database,
        ModelRegistry(database),
        Steering(database),
        Intake(database),
        Receipts(database),
        SampleQueue(database),
        LineReader(database),
        WeightStore(folder / "weights"),
        ServerRoster(database),
    )


def sample(number: int, label: str = "a", **fields: object) -> NewSample:
    """A sample whose content is its number."""
    return NewSample(content=f"content {number}".encode(), label=label, **fields)  # type: ignore[arg-type]
