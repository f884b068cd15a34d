"""What versions with a closed-form head see in contents, and what they answer: everything goes by features.

Made for one update. A backbone that stood still is asked once for each content, whatever number of heads look at it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.errors import Corrupt
from app.log import get_logger
from app.networks.network import Network
from app.storage.tables import Model
from worker.attempt import Attempt
from worker.decoding import Content, Labelled
from worker.featuring import FeatureSource
from worker.gate import Judged
from worker.material import Material

log = get_logger(__name__)


@dataclass(frozen=True)
class Seer:
    """A network and the digest of its backbone."""

    network: Network
    backbone: str

    @property
    def made_by(self) -> str:
        """Names what makes the head's inputs: the backbone and, where there are any, power and projection."""
        spec = self.network.spec
        power = "" if spec.power is None else f"^{spec.power!r}"
        projection = f"+{spec.projection}:{spec.seed}" if spec.projection else ""
        return f"{self.backbone}{power}{projection}"


class Sight:
    """Features and answers for one model's contents."""

    def __init__(self, source: FeatureSource, model: Model, between: Callable[[], None]) -> None:
        self._source = source
        self._model = model
        self._between = between

    def fed(self, seer: Seer, contents: Sequence[Content]) -> dict[str, Tensor]:
        """What the seer's head is fed of each content, (head_width,) by digest; one whose bytes are gone is missing."""
        network, backbone = seer.network, seer.backbone
        if seer.made_by == backbone:
            return self._source.features(self._model, network, backbone, contents, self._between)
        return self._source.fed(self._model, network, backbone, seer.made_by, contents, self._between)

    def answers(self, seer: Seer, contents: Sequence[Content]) -> dict[str, int | None]:
        """The label id that the seer gives each content, by digest; None from a network without classes."""
        return answered(seer.network, self.fed(seer, contents))


def answered(network: Network, fed: Mapping[str, Tensor]) -> dict[str, int | None]:
    """The label id of the highest logit for each of the head's inputs."""
    labels = network.spec.labels
    if not labels or not fed:
        return dict.fromkeys(fed)
    with torch.inference_mode():
        device = network.head.weight.device
        rows = network.head(torch.stack(list(fed.values())).to(device)).argmax(1).tolist()  # (contents,)
    return {digest: labels[row] for digest, row in zip(fed, rows, strict=True)}


def examined(
    attempt: Attempt, sight: Sight, material: Material, live: Seer, candidate: Seer
) -> tuple[list[Judged], list[str]]:
    """Ask live, candidate and anchor about every held-out sample; the ids stand beside.

    An anchor whose files are gone or damaged gives its place to live.
    """
    contents: list[Labelled] = [*material.settled, *material.held]
    by_live, by_candidate = sight.answers(live, contents), sight.answers(candidate, contents)
    by_anchor = by_live
    if attempt.anchor_id != attempt.claim.parent.id:
        anchor = attempt.stores.registry.version_by_id(attempt.anchor_id)
        try:
            network = attempt.loader.load(anchor)
            by_anchor = sight.answers(Seer(network, attempt.loader.backbone_of(anchor)[1]), contents)
        except Corrupt as error:
            log.warning("anchor is of no use, live takes its place", version=anchor.number, error=str(error))
    settled = len(material.settled)
    judged, sample_ids = [], []
    for index, one in enumerate(contents):
        digest = one.content_digest
        if digest in by_live and digest in by_candidate and digest in by_anchor:
            judged.append(
                Judged(one.label_id, by_live[digest], by_anchor[digest], by_candidate[digest], settled=index < settled)
            )
            sample_ids.append(one.sample_id)
    return judged, sample_ids
