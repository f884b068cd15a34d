"""One loaded version of a model, ready to answer; it never changes.

Made by the loader, held by LiveModel and PinnedVersions, called by the Batcher. Knows nothing of HTTP, of
databases, or of which version is live.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from app.errors import InvalidItem
from app.networks.network import Network
from app.networks.preprocessor import Preprocessor
from app.networks.spec import NetworkSpec
from app.recipe import FeaturesInput
from app.serving.execution import Execution
from app.serving.recent_inputs import RecentInputs

Scored = tuple[str, float]
"""A label and the share of belief it got. A plain tuple: thousands of them wait to be written down at a time, and the
garbage collector, which stops all threads, looks at a plain tuple of words and numbers once and at others each time."""


class Answer(NamedTuple):
    """What a version says of one input; `label` is None while the version knows no class."""

    label: str | None
    score: float | None
    top: tuple[Scored, ...]


class Predictor:
    """A version's network with all that its answers need. Safe to call from several threads.

    The network is in eval mode and on `device`, and its backbone may be shared with other versions.
    """

    def __init__(
        self,
        *,
        model_id: int,
        model: str,
        version_id: str,
        version: int,
        network: Network,
        preprocessor: Preprocessor,
        labels: Sequence[str],
        device: torch.device,
        recent: RecentInputs | None = None,
        execution: Execution | None = None,
    ) -> None:
        """`recent` is the model's own, shared by its versions. Without an `execution` the backbone runs as it is."""
        self.model_id = model_id
        self.model = model
        self.version_id = version_id
        self.version = version
        self.labels = tuple(labels)
        self._network = network
        self._preprocessor = preprocessor
        self._execution = execution or Execution(network.backbone, device)
        self._recent = recent or RecentInputs()
        self.key: Hashable = version_id
        self.cheap = isinstance(network.spec.input, FeaturesInput) and device.type == "cpu"
        self._feeds_as_it_is = isinstance(network.power, nn.Identity) and isinstance(network.projection, nn.Identity)
        with torch.inference_mode():
            self._head = network.head.prepared()

    @property
    def name(self) -> str:
        """Whose queue its requests stand in: the model's."""
        return self.model

    @property
    def network(self) -> Network:
        """The version's network, its backbone shared: not to be changed."""
        return self._network

    @property
    def spec(self) -> NetworkSpec:
        return self._network.spec

    def decode_many(self, contents: Sequence[bytes]) -> list[Tensor | InvalidItem]:
        """Decode each payload; in the place of one that cannot be used stands what is wrong with it."""
        return self._preprocessor.decode_many(contents)

    @property
    def backbone(self) -> nn.Module:
        """What makes the features; versions may share it."""
        return self._network.backbone

    def predict(self, items: Sequence[Tensor], top_k: int = 5) -> list[Answer]:
        """Answer decoded items in one forward pass, in their order."""
        if not items:
            return []
        if not self.labels:
            return self.answers(None, len(items), top_k)
        return self.answers(self.features(items), len(items), top_k)

    def features(self, items: Sequence[Tensor]) -> Tensor:
        """Run decoded items through the backbone: (batch, width), on the device."""
        return self._execution(self._preprocessor.stacked(items), self._preprocessor.normalised)

    def answers(self, features: Tensor | None, count: int, top_k: int) -> list[Answer]:
        """Answer so many items from what the backbone made of them; without labels no features are needed."""
        if not self.labels or features is None:
            return [Answer(label=None, score=None, top=()) for _ in range(count)]
        with torch.inference_mode():
            beliefs = self._scored(features).softmax(dim=1)  # (batch, labels)
            scores, rows = beliefs.topk(min(max(top_k, 1), len(self.labels)), dim=1)
        labels = self.labels.__getitem__
        answers = []
        for item_scores, item_rows in zip(scores.tolist(), rows.tolist(), strict=True):
            if math.isnan(item_scores[0]):
                raise InvalidItem("no_finite_answer", f"Version {self.version} scores an input with no finite number.")
            top = tuple(zip(map(labels, item_rows), item_scores, strict=True))
            answers.append(Answer(*top[0], top))
        return answers

    def trimmed(self, answer: Answer, top_k: int) -> Answer:
        """Give the answer with fewer of the most believed labels."""
        return answer._replace(top=answer.top[:top_k])

    def note(self, items: Sequence[Tensor]) -> None:
        """Remember a batch that requests brought, for the model's next version to be warmed up with."""
        self._recent.note(items)

    def _scored(self, features: Tensor) -> Tensor:
        fed = features if self._feeds_as_it_is else self._network.fed(features)
        logits = self._head(fed)  # (batch, labels)
        return logits if logits.is_cpu and logits.dtype is torch.float32 else logits.float().cpu()
