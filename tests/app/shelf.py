"""Versions made by hand over a real database and real files: whole ones and deltas, without an update."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from uuid_utils import uuid7

from app.loading import VersionLoader
from app.networks.network import Network
from app.networks.serialization import to_bytes
from app.recipe import FeaturesInput, Input, NetworkChoice, NewModel, Recipe
from app.storage.database import Database
from app.storage.migrate import upgrade
from app.storage.registry import ModelRegistry
from app.storage.states import ArtifactKind, FileState, Verdict
from app.storage.tables import Artifact, Model, Version
from app.storage.weights import WeightStore


@dataclass
class Shelf:
    """A database, a folder of weights, and the steps that tests of versions take."""

    database: Database
    weights: WeightStore
    folder: Path
    registry: ModelRegistry = field(init=False)

    def __post_init__(self) -> None:
        self.registry = ModelRegistry(self.database)

    def loader(self, keep: int = 0, device: str = "cpu") -> VersionLoader:
        """A loader of its own, as a process that starts now has it."""
        return VersionLoader(self.registry, self.weights, {}, lambda source: {}, device=device, keep=keep)

    def create(
        self, name: str = "digits", architecture: str = "mlp", shape: Input | None = None, seed: int = 0
    ) -> Version:
        """Make a model; its first version, without files."""
        new = NewModel(
            name=name,
            input=shape or FeaturesInput(size=4),
            network=NetworkChoice(architecture=architecture),
            labels=("a", "b"),
            recipe=Recipe(seed=seed),
        )
        return self.registry.create(new, "tester").version

    def model(self, version: Version) -> Model:
        return next(model for model in self.registry.models() if model.id == version.model_id)

    def whole(self, parent: Version, change: Callable[[Network], object] | None = None) -> Version:
        """Save a changed copy of the parent in full."""
        network = copy.deepcopy(self.loader().load(parent))
        (change or moved_all)(network)
        return self.add(parent, network, None, network.state_dict())

    def delta(self, parent: Version, change: Callable[[Network], object]) -> Version:
        """Save what a change to a copy of the parent changes of the parent's base."""
        loader = self.loader(keep=1)
        network = copy.deepcopy(loader.load(parent))
        change(network)
        delta = loader.delta(network, parent)
        return self.add(parent, network, delta.base_id, delta.tensors)

    def add(self, parent: Version, network: Network, base_id: str | None, tensors: dict[str, torch.Tensor]) -> Version:
        version_id = str(uuid7())
        file = self.weights.write(version_id, ArtifactKind.WEIGHTS, to_bytes(tensors))
        newest = self.registry.versions(parent.model_id, None, 1)[0]
        with self.database.sessions.begin() as session:
            session.add(
                Version(
                    id=version_id,
                    model_id=parent.model_id,
                    number=newest.number + 1,
                    parent_id=parent.id,
                    base_id=base_id,
                    spec=network.spec.to_json(),
                    recipe=parent.recipe,
                    recipe_number=parent.recipe_number,
                    verdict=Verdict.PROMOTED,
                    reason="by hand",
                    metrics={},
                    files=FileState.PRESENT,
                    created_at=datetime.now(UTC),
                )
            )
            session.flush()
            session.add(Artifact(version_id=version_id, kind=file.kind, sha256=file.sha256, nbytes=file.nbytes))
        return self.registry.version_by_id(version_id)

    def corrupt(self, version: Version) -> None:
        """Flip a byte of the version's file."""
        path = self.file(version)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)

    def file(self, version: Version) -> Path:
        """Where the version's weights lie."""
        (path,) = (path for path in self.folder.glob(f"*/{version.id}.safetensors"))
        return path


def open_shelf(folder: Path) -> Shelf:
    database = Database(f"sqlite:///{folder / 'perennial.db'}")
    upgrade(database)
    return Shelf(database, WeightStore(folder / "weights"), folder / "weights")


@torch.no_grad()
def moved_all(network: Network) -> None:
    """Move every parameter."""
    for parameter in network.parameters():
        parameter.add_(0.01)


def bias(value: float) -> Callable[[Network], object]:
    """Let every label of the head have this bias, the first one more."""

    def change(network: Network) -> None:
        with torch.no_grad():
            network.head.bias.fill_(value)
            network.head.bias[0] = value + 1

    return change
