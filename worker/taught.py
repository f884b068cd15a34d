"""What a closed-form head was solved from: which samples, their sums, and how strongly it is held.

Kept by the lanes from update to update, saved now and then as a version's learner state. Everything here follows from
the line's samples and can be rebuilt from them; nothing here decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import torch
from torch import Tensor

from app.recipe import Recipe
from worker.learning.closed_form import UNCALIBRATED, ClosedFormSettings, Solved, laid_out, solve
from worker.learning.fading import Fading
from worker.learning.kept_factor import KeptFactor
from worker.learning.refinement import SHRINKAGE, START, KeptSteps, refined
from worker.learning.scatter import Linear
from worker.learning.strength import Choice, choose
from worker.learning.sums import Sums
from worker.tally import Change, Tally

_SUMS, _FADING, _TALLY = "sums/", "fading/", "tally/"


@dataclass
class Taught:
    """The sums of one version of the line. Features given to it are what the head is fed, by content digest."""

    version_id: str
    tally: Tally
    sums: Sums
    fading: Fading | None = None
    arrivals: dict[str, int] = field(default_factory=dict)  # content digest → when it came into what fades
    choice: Choice | None = None
    unsaved: int = 0  # contents that changed since it was last saved
    beside: dict[str, Tensor] = field(default_factory=dict)  # what the slow lane left; passed on as it is
    factor: KeptFactor = field(default_factory=KeptFactor)  # of the sums' last whole solve; not saved
    stepped: KeptSteps | None = None  # what a refined head's steps added when they were last taken; not saved

    @classmethod
    def nothing(cls, version_id: str, width: int, made_by: str, forgetting: float) -> "Taught":
        """Begin empty; `made_by` names the backbone (and projection) whose features the sums take."""
        fading = Fading(width, made_by, forgetting) if forgetting < 1 else None
        return cls(version_id, Tally(), Sums(width, made_by), fading)

    @property
    def made_by(self) -> str:
        return self.sums.backbone

    @property
    def forgetting(self) -> float:
        return self.fading.factor if self.fading else 1.0

    @property
    def nbytes(self) -> int:
        """Bytes of the sums and the factor in memory."""
        return self.sums.nbytes + self.factor.nbytes + (self.fading.sums.nbytes if self.fading else 0)

    @property
    def refined_at(self) -> int | None:
        """Over how many samples the steps were taken that are in the last head; None without steps."""
        return self.stepped.samples if self.stepped is not None else None

    def copy(self) -> "Taught":
        """Copy all but the tally and the factor, which both then share."""
        fading = self.fading.copy() if self.fading is not None else None
        return replace(self, sums=self.sums.copy(), fading=fading, arrivals=dict(self.arrivals))

    def begin_again(self, contents: Mapping[str, int], features: Mapping[str, Tensor]) -> None:
        """Fill the sums anew with just these contents, in their order."""
        fresh = Taught.nothing(self.version_id, self.sums.width, self.made_by, self.forgetting)
        self.sums, self.fading, self.arrivals, self.stepped = fresh.sums, fresh.fading, {}, None
        self.follow([Change(digest, None, label) for digest, label in contents.items()], features)

    def choose(self, recipe: Recipe, features: Mapping[str, Tensor], label_ids: Sequence[int]) -> None:
        """Choose strength and scale by leaving out the samples of these features."""
        self.choice = choose(self.sums, settings_of(recipe), torch.stack(list(features.values())), label_ids)

    def follow(self, changes: Sequence[Change], features: Mapping[str, Tensor]) -> None:
        """Take out what is in no more, then put in what came, in the order of arrival."""
        gone = [change for change in changes if change.before is not None]
        come = [change for change in changes if change.after is not None]
        come.sort(key=lambda change: self.tally.sample_of(change.content_digest))
        if gone:
            self.stepped = None  # or a trace of them would stay
            rows, labels = _rows(gone, features), [change.before for change in gone if change.before is not None]
            self.sums.subtract(rows, labels, backbone=self.made_by)
            if self.fading is not None:
                arrivals = [self.arrivals.pop(change.content_digest) for change in gone]
                self.fading.subtract(rows, labels, arrivals, backbone=self.made_by)
        if come:
            rows, labels = _rows(come, features), [change.after for change in come if change.after is not None]
            self.sums.add(rows, labels, backbone=self.made_by)
            if self.fading is not None:
                numbers = self.fading.add(rows, labels, backbone=self.made_by)
                self.arrivals.update(zip((change.content_digest for change in come), numbers, strict=True))
        self.unsaved += len(changes)

    def looks_at_samples(self, recipe: Recipe) -> bool:
        """Tell whether `heads` needs the features of the contents: a refined head's steps are to be taken again."""
        steps = refinement(recipe, self.choice)
        return steps > 0 and not self._steps_hold(steps)

    def heads(
        self, recipe: Recipe, label_ids: Sequence[int], features: Mapping[str, Tensor] | None = None
    ) -> list[Solved]:
        """Solve the head that forgets nothing and, where the recipe wants one, the head that forgets.

        Given features of the contents, by digest, the head is refined by them as the recipe wants it; without them
        what steps added last is added again, as long as it holds.
        """
        settings = settings_of(recipe)
        strength, scale = (self.choice.strength, self.choice.scale) if self.choice else (None, UNCALIBRATED)
        steps = refinement(recipe, self.choice)
        if steps and self.sums.samples and (features or self._steps_hold(steps)):
            return [laid_out(self._refined(features or {}, steps, scale), self.sums.width, label_ids, scale=1.0)]
        self.stepped = None
        steady = self.factor.solve(self.sums, settings, label_ids, strength=strength, scale=scale)
        if self.fading is None:
            return [steady]
        return [steady, solve(self.fading.sums, settings, label_ids, strength=strength, scale=scale)]

    def _steps_hold(self, steps: int) -> bool:
        if self.stepped is None or self.choice is None:
            return False
        return self.stepped.hold(self.sums.counts, steps=steps, scale=self.choice.scale)

    def _refined(self, features: Mapping[str, Tensor], steps: int, scale: float) -> Linear:
        if self.stepped is not None and not features:
            return self.stepped.added_to(self.factor.linear(self.sums, START))
        scatter, start = self.factor.anew(self.sums, START)
        end = refined(scatter, start, features, self.tally.contents(), steps=steps, scale=scale)
        self.stepped = KeptSteps.between(start, end, self.sums.counts, steps=steps, scale=scale)
        return end

    def tensors(self) -> dict[str, Tensor]:
        """Copy it out for a file; `from_tensors` reads it."""
        places = sorted(self.tally.places().items())
        ids = b"".join(UUID(sample_id).bytes for sample_id, _ in places)
        digests = b"".join(bytes.fromhex(digest) for _, (digest, _) in places)
        return {
            **self.beside,
            f"{_TALLY}samples": _bytes(ids, 16),
            f"{_TALLY}contents": _bytes(digests, 32),
            f"{_TALLY}labels": torch.tensor([label for _, (_, label) in places], dtype=torch.int64),
            **{_SUMS + name: tensor for name, tensor in self.sums.tensors().items()},
            **self._fading_tensors(),
        }

    @classmethod
    def from_tensors(cls, version_id: str, tensors: Mapping[str, Tensor]) -> "Taught | None":
        """Read what was saved with a version; None when it holds no sums."""
        parts = {
            prefix: {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            for prefix in (_SUMS, _FADING)
        }
        if not parts[_SUMS]:
            return None
        ids = [str(UUID(bytes=bytes(row))) for row in tensors[f"{_TALLY}samples"].tolist()]
        digests = [bytes(row).hex() for row in tensors[f"{_TALLY}contents"].tolist()]
        labels = tensors[f"{_TALLY}labels"].tolist()
        places = {sample_id: (digest, label) for sample_id, digest, label in zip(ids, digests, labels, strict=True)}
        taught = cls(version_id, Tally.of(places.items()), Sums.from_tensors(parts[_SUMS]), beside=beside(tensors))
        if parts[_FADING]:
            numbers = tensors[f"{_TALLY}arrivals"].tolist()
            taught.arrivals = dict(zip(sorted(taught.tally.contents()), numbers, strict=True))
            taught.fading = Fading.from_tensors(parts[_FADING])
        return taught

    def _fading_tensors(self) -> dict[str, Tensor]:
        if self.fading is None:
            return {}
        numbers = [self.arrivals[digest] for digest in sorted(self.arrivals)]
        tensors = {_FADING + name: tensor for name, tensor in self.fading.tensors().items()}
        return {**tensors, f"{_TALLY}arrivals": torch.tensor(numbers, dtype=torch.int64)}


def beside(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a saved learner state holds that is not of this module."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith((_SUMS, _FADING, _TALLY))}


def refinement(recipe: Recipe, choice: Choice | None) -> int:
    """Give how many steps of logistic regression are to follow the closed form.

    None where too little is known to choose by, and none where samples left out ask for as much shrinkage as the steps
    begin with: so few are the samples then, or so many labels wrong, that steps would learn what is wrong in them.
    """
    if recipe.head.kind != "slda" or choice is None or not choice.rows or choice.strength >= SHRINKAGE:
        return 0
    return recipe.head.refinement


def settings_of(recipe: Recipe) -> ClosedFormSettings:
    """How the recipe wants its head solved."""
    head = recipe.head
    return ClosedFormSettings(
        kind=head.kind,
        strength=head.shrinkage if head.kind == "slda" else head.strength if head.kind == "ridge" else None,
        balanced=head.balanced if head.kind == "ridge" else True,
    )


def _rows(changes: Sequence[Change], features: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([features[change.content_digest] for change in changes])


def _bytes(data: bytes, width: int) -> Tensor:
    return torch.tensor(list(data), dtype=torch.uint8).reshape(-1, width)
