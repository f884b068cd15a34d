"""What versions say of the held-out samples, and which version of the line is best on them.

Called by the worker's update, before the gate looks at it.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.errors import Corrupt
from app.loading import VersionLoader
from app.log import get_logger
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.storage.line import LineReader
from app.storage.registry import ModelRegistry
from worker.decoding import Content, Decoder
from worker.gate import Judged
from worker.learning.failure import LearningStopped
from worker.learning.samples import Collate, chunks
from worker.material import Material

log = get_logger(__name__)

_BATCH = 256

Scores = dict[str, int | None]  # sample id → predicted label id


def predict_labels(
    network: Network, items: Sequence[Tensor], collate: Collate, device: torch.device
) -> list[int | None]:
    """Give the label id of the highest logit for each item; None from a network without classes."""
    labels = network.spec.labels
    if not labels:
        return [None] * len(items)
    if network.head.weight.device != device:
        network = copy.deepcopy(network).to(device)  # its backbone may be shared, and others hold it where it is
    predicted: list[int | None] = []
    with torch.inference_mode():
        for some in chunks(range(len(items)), _BATCH):
            logits = network(collate([items[index] for index in some]).to(device))  # (batch, labels)
            predicted += [labels[row] for row in logits.argmax(1).tolist()]
    return predicted


def complete(
    known: Mapping[str, int | None],
    sample_ids: Sequence[str],
    items: Sequence[Tensor],
    predict: Callable[[Sequence[Tensor]], list[int | None]],
) -> Scores:
    """Fill up the scores that are `known` already; `predict` is asked only for the samples that lack one."""
    missing = [index for index, sample_id in enumerate(sample_ids) if sample_id not in known]
    asked = predict([items[index] for index in missing]) if missing else []
    fresh = {sample_ids[index]: label for index, label in zip(missing, asked, strict=True)}
    return {sample_id: known[sample_id] if sample_id in known else fresh[sample_id] for sample_id in sample_ids}


def best_of_the_line(judged: Sequence[Judged], anchor_id: str, live_id: str, candidate_id: str | None) -> str:
    """Give the version that is right most often on today's held-out samples; of equals the newest.

    `candidate_id` is None when the candidate does not join the line.
    """
    entrants = [
        (sum(one.anchor == one.label for one in judged), 0, anchor_id),
        (sum(one.live == one.label for one in judged), 1, live_id),
    ]
    if candidate_id is not None:
        entrants.append((sum(one.candidate == one.label for one in judged), 2, candidate_id))
    return max(entrants)[2]


@dataclass(frozen=True)
class Entrant:
    """A version that is asked."""

    version_id: str
    network: Network


class Judging:
    """Asks versions about held-out samples."""

    def __init__(
        self,
        registry: ModelRegistry,
        line: LineReader,
        loader: VersionLoader,
        decoder: Decoder,
        device: torch.device,
    ) -> None:
        self._registry = registry
        self._line = line
        self._loader = loader
        self._decoder = decoder
        self._device = device

    def score(
        self,
        material: Material,
        live: Entrant,
        candidate: Entrant,
        anchor_id: str,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[list[Judged], dict[str, Scores]]:
        """Ask candidate, live and anchor about every held-out sample; what was asked before is not asked again.

        An anchor whose files are gone or damaged gives its place to live. Also gives all scores that were given:
        version id → sample id → label.
        """
        contents: list[tuple[str, int, Content, bool]] = [
            *((one.sample_id, one.label_id, one, True) for one in material.settled),
            *((one.sample_id, one.label_id, one, False) for one in material.held),
        ]
        decoded = self._decoder.decode(live.network.spec, [content for _, _, content, _ in contents])
        contents = [one for one in contents if one[0] in decoded]
        sample_ids = [sample_id for sample_id, _, _, _ in contents]
        items = [decoded[sample_id] for sample_id in sample_ids]
        collate = preprocessor_for(live.network.spec).batch

        def asking(network: Callable[[], Network]) -> Callable[[Sequence[Tensor]], list[int | None]]:
            def ask(asked: Sequence[Tensor]) -> list[int | None]:
                if should_stop():
                    raise LearningStopped
                return predict_labels(network(), asked, collate, self._device)

            return ask

        live_id = live.version_id
        scores = {candidate.version_id: complete({}, sample_ids, items, asking(lambda: candidate.network))}
        scores[live_id] = complete(self._known(live_id, sample_ids), sample_ids, items, asking(lambda: live.network))
        of_anchor = scores.get(anchor_id)
        if of_anchor is None:
            anchor = self._registry.version_by_id(anchor_id)
            try:
                of_anchor = scores[anchor_id] = complete(
                    self._known(anchor_id, sample_ids), sample_ids, items, asking(lambda: self._loader.load(anchor))
                )
            except Corrupt as error:
                log.warning("anchor is of no use, live takes its place", version=anchor.number, error=str(error))
                of_anchor = scores[live_id]
        judged = [
            Judged(
                label=label,
                live=scores[live_id][sample_id],
                anchor=of_anchor[sample_id],
                candidate=scores[candidate.version_id][sample_id],
                settled=settled,
            )
            for sample_id, label, _, settled in contents
        ]
        return judged, scores

    def _known(self, version_id: str, sample_ids: Sequence[str]) -> dict[str, int | None]:
        return self._line.scores(version_id, sample_ids)
