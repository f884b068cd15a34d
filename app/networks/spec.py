"""All that rebuilds a network, as plain data: saved as JSON in the version's row.

Knows nothing of torch, so the worker's loop and the storage can read it.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from app.recipe import FeaturesInput, ImageInput, Input

_INPUT: TypeAdapter[ImageInput | FeaturesInput] = TypeAdapter(Input)


@dataclass(frozen=True)
class NetworkSpec:
    """Architecture, input, labels in index order, and where the first weights come from.

    `labels` are the model-wide label ids in the order of the head's rows: row i scores `labels[i]`.
    `weights` is None (random from `seed`), "imagenet" or "sha256:…". `projection` is the width of a fixed random
    layer, drawn from `seed`, between backbone and head; 0 has none. `power` is the exponent that features are
    raised to before that layer; None leaves them as the backbone made them.
    """

    architecture: str
    input: ImageInput | FeaturesInput
    labels: tuple[int, ...] = ()
    weights: str | None = None
    seed: int = 0
    projection: int = 0
    power: float | None = None

    @property
    def form(self) -> str:
        """What networks have in common that are built and run alike, whatever they learned."""
        return f"{self.architecture} {self.input.model_dump_json()} {self.weights is None}"

    def grown(self, label_ids: tuple[int, ...]) -> "NetworkSpec":
        """The same spec with rows appended for `label_ids`; those already there are skipped."""
        new = tuple(dict.fromkeys(label for label in label_ids if label not in self.labels))
        return replace(self, labels=self.labels + new)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "input": self.input.model_dump(), "labels": list(self.labels)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "NetworkSpec":
        return cls(
            architecture=data["architecture"],
            input=_INPUT.validate_python(data["input"]),
            labels=tuple(data["labels"]),
            weights=data["weights"],
            seed=data["seed"],
            projection=data.get("projection", 0),
            power=data.get("power"),
        )
