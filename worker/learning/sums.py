"""What a closed-form head knows of its samples: three sums, from which any sample can be taken out again.

Filled by the fast lane, one claim at a time, and rebuilt from cached features after the backbone has moved. Solved by
`closed_form`. Knows nothing of rows of a head, of strengths, or of where features come from: of those only the digest
of the backbone that made them, because features of two backbones must never meet in one sum.
"""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.learning.failure import LearningFailed
from worker.learning.scatter import Centres, Scatter

_FORMAT = 1
_CHUNK = 1024  # rows turned into float64 at a time
_WAITING = 64  # rows that wait at most to be multiplied together: one alone costs a pass over the whole square
_FADED = 1e-30  # of a sample's weight: below it a class has left a sum that forgets


@dataclass(frozen=True, eq=False)
class Moved:
    """Samples that came, or went where their weights are below zero. Not to be changed: copies of sums share it."""

    rows: Tensor  # (n, width) float64
    label_ids: tuple[int, ...]
    weights: Tensor  # (n,) float64
    energy: float  # Σ w·z², over samples and features


class Sums:
    """G = Σ w·zzᵀ, S_c = Σ w·z and n_c = Σ w over the samples of each label, w = 1 unless given, all in float64.

    Order does not matter: two ways to the same samples differ by rounding only. Memory is
    8·(D² + C·(D + 2)) bytes for D features and C labels: 33 kB at D = 64, 2.1 MB at 512, 13.1 MB at 1280, 33.6 MB at
    2048 and 128 MB at 4000, the labels' share not counted; saved, the square is a triangle and takes half. Not safe to
    call from two threads at once.
    """

    def __init__(self, width: int, backbone: str) -> None:
        """Begin empty, for features (samples, width) that the backbone of that digest made."""
        self.width, self.backbone = width, backbone
        self._gram = torch.zeros(width, width, dtype=torch.float64)
        self._totals = torch.zeros(0, width, dtype=torch.float64)  # (labels, width)
        self._weights = torch.zeros(0, dtype=torch.float64)  # (labels,)
        self._samples = torch.zeros(0, dtype=torch.int64)  # (labels,)
        self._rows: dict[int, int] = {}
        self._waiting: list[Moved] = []  # what the square still lacks; the other sums have it
        self._shared = False  # whether a copy reads the same square
        self.settled = object()  # stands for the square as it is: another object, another square

    @property
    def waiting(self) -> tuple[Moved, ...]:
        """What came and went since the square was as `settled` says."""
        return tuple(self._waiting)

    @property
    def samples(self) -> int:
        """How many samples are in."""
        return int(self._samples.sum())

    @property
    def counts(self) -> dict[int, int]:
        """How many samples each label has; a label that lost all of its samples is not listed."""
        samples = self._samples.tolist()
        return {label: samples[row] for label, row in self._rows.items() if samples[row] > 0}

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(tensor.nbytes for tensor in (self._gram, self._totals, self._weights, self._samples))

    def add(self, features: Tensor, label_ids: Sequence[int], *, backbone: str, weights: Tensor | None = None) -> None:
        """Take samples in: features (samples, width) of any float type, one label id each, weights (samples,) or 1.

        Raises LearningFailed, with nothing changed, for another backbone's features, another width, or numbers that
        are not finite.
        """
        self.require(features, label_ids, backbone=backbone)
        self._grow(label_ids)
        self._move(features, label_ids, weights, sign=1)

    def subtract(
        self, features: Tensor, label_ids: Sequence[int], *, backbone: str, weights: Tensor | None = None
    ) -> None:
        """Take samples out that were added with these features, labels and weights.

        Raises LearningFailed, with nothing changed, as `add` does, and for a label with fewer samples than are to go.
        """
        self.require(features, label_ids, backbone=backbone)
        counts = self.counts
        for label in dict.fromkeys(label_ids):
            going, here = sum(other == label for other in label_ids), counts.get(label, 0)
            if going > here:
                raise LearningFailed(
                    f"{going} samples of label id {label} are to be taken out and {here} are in: rebuild the sums "
                    "from the cached features."
                )
        self._move(features, label_ids, weights, sign=-1)
        empty = self._samples == 0
        self._totals[empty] = 0.0
        self._weights[empty] = 0.0
        if bool(empty.all()):
            self._waiting.clear()
            self._square(torch.zeros_like(self._gram))

    def relabel(
        self,
        features: Tensor,
        before: Sequence[int],
        after: Sequence[int],
        *,
        backbone: str,
        weights: Tensor | None = None,
    ) -> None:
        """Give samples that are in another label."""
        self.require(features, after, backbone=backbone)
        self.subtract(features, before, backbone=backbone, weights=weights)
        self.add(features, after, backbone=backbone, weights=weights)

    def copy(self) -> "Sums":
        """Copy all but the square, which both read until one of them changes it."""
        self._shared = True
        copied = copy.copy(self)
        own = {name: getattr(self, name).clone() for name in ("_totals", "_weights", "_samples")}
        vars(copied).update(own, _rows=dict(self._rows), _waiting=list(self._waiting))
        return copied

    def fade(self, factor: float) -> None:
        """Multiply all that is in by a factor: what came before counts that much less."""
        self._multiply()
        self._square(self._gram * factor if self._shared else self._gram.mul_(factor))
        for tensor in (self._totals, self._weights):
            tensor.mul_(factor)

    def require(self, features: Tensor, label_ids: Sequence[int], *, backbone: str) -> None:
        """Raise LearningFailed, as `add` does, for features that cannot come in."""
        if backbone != self.backbone:
            raise LearningFailed(
                f"These features come from backbone {backbone!r} and the sums are of {self.backbone!r}: extract them "
                "again with the sums' backbone, or rebuild the sums."
            )
        if features.shape != (len(label_ids), self.width):
            raise LearningFailed(
                f"Features have the shape {tuple(features.shape)}: expected {(len(label_ids), self.width)}, a row for "
                "each label id."
            )
        wrong = (~features.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if wrong:
            raise LearningFailed(
                f"The features of sample {wrong[0]} of {len(label_ids)} (label id {label_ids[wrong[0]]}) hold numbers "
                "that are not finite: quarantine that sample, or, if others follow, roll back the backbone."
            )

    def scatter(self) -> Scatter:
        """Split the sums into class means and the scatter around them; labels without samples are left out.

        Σ_c Σ_{i in c} w_i (z_i − μ_c)(z_i − μ_c)ᵀ = G − Σ_c n_c μ_c μ_cᵀ. Raises LearningFailed when nothing is in.
        """
        centres = self.centres()
        if not centres.label_ids:
            raise LearningFailed("There is no sample to solve a head from; teach at least one.")
        self._multiply()
        means, weights = centres.means, centres.weights
        within = torch.addmm(self._gram, (means * weights[:, None]).T, means, alpha=-1)
        energy = float(self._gram.diagonal().mean())
        return Scatter(centres.label_ids, means, weights, centres.samples, within, energy)

    def centres(self) -> Centres:
        """Give the class means as they are now; labels without samples are left out."""
        samples, summed = self._samples.tolist(), self._weights.tolist()
        present = [(label, row) for label, row in self._rows.items() if samples[row] and summed[row] > _FADED]
        rows = [row for _, row in present]
        weights = self._weights[rows]
        means = self._totals[rows] / weights[:, None]  # (labels, width)
        return Centres(tuple(label for label, _ in present), means, weights, self._samples[rows])

    def tensors(self) -> dict[str, Tensor]:
        """Copy the sums out, for a file: of the symmetric square only the upper triangle."""
        self._multiply()
        about = {"format": _FORMAT, "width": self.width, "backbone": self.backbone}
        upper = torch.triu_indices(self.width, self.width)
        return {
            "gram": self._gram[upper[0], upper[1]],  # (width·(width + 1)/2,)
            "totals": self._totals.clone(),
            "weights": self._weights.clone(),
            "samples": self._samples.clone(),
            "label_ids": torch.tensor(list(self._rows), dtype=torch.int64),
            "about": torch.tensor(list(json.dumps(about, sort_keys=True).encode()), dtype=torch.uint8),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Sums":
        """Read what `tensors` gave; a head solved from it is bit-equal. Raises LearningFailed for another format."""
        about = json.loads(bytes(tensors["about"].tolist()))
        if about.get("format") != _FORMAT:
            raise LearningFailed(
                f"The saved sums have format {about.get('format')!r}, this release reads {_FORMAT}: rebuild them from "
                "the cached features."
            )
        sums = cls(about["width"], about["backbone"])
        upper = torch.triu_indices(sums.width, sums.width)
        sums._gram[upper[0], upper[1]] = tensors["gram"]
        sums._gram[upper[1], upper[0]] = tensors["gram"]
        sums._totals, sums._weights = tensors["totals"].clone(), tensors["weights"].clone()
        sums._samples = tensors["samples"].clone()
        sums._rows = {label: row for row, label in enumerate(tensors["label_ids"].tolist())}
        return sums

    def _grow(self, label_ids: Sequence[int]) -> None:
        new = [label for label in dict.fromkeys(label_ids) if label not in self._rows]
        if new:
            self._rows.update({label: len(self._rows) + place for place, label in enumerate(new)})
            self._totals = torch.cat([self._totals, self._totals.new_zeros(len(new), self.width)])
            self._weights = torch.cat([self._weights, self._weights.new_zeros(len(new))])
            self._samples = torch.cat([self._samples, self._samples.new_zeros(len(new))])

    def _move(self, features: Tensor, label_ids: Sequence[int], weights: Tensor | None, sign: int) -> None:
        rows = torch.tensor([self._rows[label] for label in label_ids], dtype=torch.int64)
        counted = torch.ones(len(rows), dtype=torch.float64) if weights is None else weights.to(torch.float64)
        for part in _chunks(len(rows)):
            z = features[part].detach().to("cpu", torch.float64, copy=True)
            weighted = z if weights is None else z * counted[part, None]
            weights_now = counted[part] * sign
            energy = float(weights_now @ z.square().sum(1))
            self._waiting.append(Moved(z, tuple(label_ids[part]), weights_now, energy))
            if sum(len(moved.rows) for moved in self._waiting) >= _WAITING:
                self._multiply()
            self._totals.index_add_(0, rows[part], weighted, alpha=sign)
        self._weights.index_add_(0, rows, counted, alpha=sign)
        self._samples.index_add_(0, rows, torch.ones_like(rows), alpha=sign)

    def _multiply(self) -> None:
        if self._waiting:
            rows = torch.cat([moved.rows for moved in self._waiting])
            weighted = rows * torch.cat([moved.weights for moved in self._waiting])[:, None]
            self._square((torch.addmm if self._shared else Tensor.addmm_)(self._gram, weighted.T, rows))
            self._waiting.clear()

    def _square(self, gram: Tensor) -> None:
        """Take this as the square: the old one, changed, or a new one where a copy still reads the old one."""
        self._shared = self._shared and gram is self._gram
        self._gram, self.settled = gram, object()


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, count, _CHUNK):
        yield slice(start, start + _CHUNK)
