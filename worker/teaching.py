"""What the learner is given: the claim and the memory as samples, the network grown and standardised, its settings.

Called by lessons and by the slow lane. Translates the product's words (label ids, recipes, payloads) into the
learner's.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from app.ingredients import L2SP, OwnPenalty
from app.networks.growth import grow
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.networks.spec import NetworkSpec
from app.networks.standardize import standardize
from app.recipe import Recipe
from worker.attempt import Attempt
from worker.decoding import Decoder, Labelled
from worker.holdout import fraction
from worker.learning.failure import LearningFailed, LearningStopped
from worker.learning.learner import Learned, Learner
from worker.learning.penalty import OwnLoss
from worker.learning.samples import Samples, chunks
from worker.learning.settings import LearnerSettings
from worker.material import Material
from worker.recipe_settings import learner_settings

_IMPRINT_MEMORY = 256  # remembered samples that show a new class where the others are
_BATCH = 256


class Teaching:
    """Teaches one model's network by its recipe."""

    def __init__(self, attempt: Attempt, decoder: Decoder) -> None:
        model = attempt.claim.model
        self._attempt = attempt
        self._recipe = Recipe.model_validate(model.recipe)
        self._key = model.holdout_key
        self._decoder = decoder
        self._device = attempt.device
        self._seed = attempt.seed

    def learn(
        self, parent: Network, material: Material, state: dict[str, Tensor] | None
    ) -> tuple[Learned, dict[str, bytes]]:
        """Teach a grown copy of `parent`; `state` is what the learner left with it.

        Also gives the logits that are to be remembered, by sample id, where the recipe's rehearsal wants them.
        """
        spec = parent.spec
        new_labels = material.new_labels(spec.labels)
        rows = {label: row for row, label in enumerate(spec.grown(new_labels).labels)}
        new, learned_ids = self._samples(parent, material.learn, rows)
        memory, remembered_ids = self._samples(parent, material.memory, rows)
        require_inputs(material.memory, memory)
        if self._recipe.rehearsal.kind == "der_pp":
            memory = replace(memory, logits=self._remembered(remembered_ids, rows))
        if self._attempt.stopping():
            raise LearningStopped
        network = copy.deepcopy(parent)
        for indices in chunks(range(len(new)), _BATCH):
            standardize(network, new.batch(indices)[0])
        network = self._grown(network, new_labels, new, memory)
        learner = Learner(self._settings(parent, material), self._device, self._own(spec))
        learned = learner.learn(
            network,
            new=new,
            memory=memory,
            parent=parent,
            pretrained=self._pretrained(spec),
            state=state,
            should_stop=self._attempt.stopping,
        )
        logits = learned.logits
        kept = {} if logits is None else {one: _floats(row) for one, row in zip(learned_ids, logits, strict=True)}
        return learned, kept

    def _settings(self, parent: Network, material: Material) -> LearnerSettings:
        return learner_settings(
            self._recipe,
            learned_before=material.learned_before,
            pretrained=parent.spec.weights is not None,
            seed=self._seed,
        )

    def _own(self, spec: NetworkSpec) -> Mapping[str, OwnLoss]:
        """The losses that the user's builder brings; nothing is asked of it when the recipe names none."""
        if not any(isinstance(penalty, OwnPenalty) for penalty in self._recipe.penalties):
            return {}
        return self._attempt.loader.own_penalties(spec)

    def _pretrained(self, spec: NetworkSpec) -> Network | None:
        anchored = any(isinstance(one, L2SP) and one.anchor == "pretrained" for one in self._recipe.penalties)
        return self._attempt.loader.untaught(spec) if anchored else None

    def _remembered(self, sample_ids: Sequence[str], rows: dict[int, int]) -> Tensor:
        """Logits that versions of the line gave these samples, (samples, rows); NaN where there is none."""
        stores, parent = self._attempt.stores, self._attempt.claim.parent
        found = stores.line.logits(sample_ids, stores.registry.line(parent.id))
        logits = torch.full((len(sample_ids), len(rows)), float("nan"))
        for index, sample_id in enumerate(sample_ids):
            labels, values = found.get(sample_id, ([], b""))
            known = [place for place, label in enumerate(labels) if label in rows]
            if known:
                given = torch.frombuffer(bytearray(values), dtype=torch.float32)
                logits[index, [rows[labels[place]] for place in known]] = given[known]
        return logits

    def _grown(self, network: Network, new_labels: tuple[int, ...], new: Samples, memory: Samples) -> Network:
        """Add the rows, each starting from the mean of its class among the new samples."""
        if not new_labels:
            return network
        shown = new.followed_by(memory)
        # Every tenth, so that all classes of a long memory are among them.
        step = max(1, len(memory) // _IMPRINT_MEMORY)
        indices = [*range(len(new)), *range(len(new), len(shown), step)]
        labels = network.spec.grown(new_labels).labels
        with torch.no_grad():
            network.to(self._device)
            features = [
                network.features(shown.batch(some)[0].to(self._device)).cpu() for some in chunks(indices, _BATCH)
            ]
            network.to("cpu")
        targets = torch.tensor([labels[row] for row in shown.targets[indices].tolist()])
        return grow(network, new_labels, torch.cat(features) if features else None, targets)

    def _samples(
        self, network: Network, contents: Sequence[Labelled], rows: dict[int, int]
    ) -> tuple[Samples, list[str]]:
        return samples_of(self._decoder, network.spec, contents, rows, self._key)


def samples_of(
    decoder: Decoder, spec: NetworkSpec, contents: Sequence[Labelled], rows: Mapping[int, int], key: bytes
) -> tuple[Samples, list[str]]:
    """The contents as the learner takes them, and the ids of those that are still there.

    `rows` tells each label id's row; the secret `key` orders the early-stopping fold.
    """
    decoded = decoder.decode(spec, contents)
    contents = [one for one in contents if one.sample_id in decoded]
    samples = Samples(
        items=[decoded[one.sample_id] for one in contents],
        targets=torch.tensor([rows[one.label_id] for one in contents], dtype=torch.int64),
        keys=torch.tensor([fraction(key, one.content_digest, "fold") for one in contents], dtype=torch.float64),
        collate=preprocessor_for(spec).batch,
    )
    return samples, [one.sample_id for one in contents]


def require_inputs(remembered: Sequence[Labelled], found: Samples) -> None:
    """Raise LearningFailed where there are samples to rehearse and not one of their inputs is stored any more."""
    if remembered and not len(found):
        raise LearningFailed(
            f"memory: the stored inputs of all {len(remembered)} samples to rehearse are gone, and without rehearsal "
            "what they taught would be lost; restore the table `payloads` from a backup, or set memory.capacity to 0."
        )


def _floats(row: Tensor) -> bytes:
    return row.float().numpy().astype("<f4").tobytes()
