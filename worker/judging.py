"""What versions say of the held-out samples, and which version of the line is best on them.

Called by the worker's update, before the gate looks at it.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from app.networks.network import Network
from worker.gate import Judged
from worker.learning.samples import Collate, chunks

_BATCH = 256

Scores = dict[str, int | None]  # sample id → predicted label id


def predict_labels(
    network: Network, items: Sequence[Tensor], collate: Collate, device: torch.device
) -> list[int | None]:
    """Give the label id of the highest logit for each item; None from a network without classes."""
    labels = network.spec.labels
    if not labels:
        return [None] * len(items)
    network.to(device).eval()
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
