"""What the learner is given: the claim and the memory as samples, the network grown and standardised, its settings.

Called by the worker's update. Translates the product's words (label ids, recipes, payloads) into the learner's.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from app.networks.growth import grow
from app.networks.network import Network
from app.networks.preprocessor import preprocessor_for
from app.networks.standardize import standardize
from app.recipe import Recipe
from app.storage.tables import Model
from worker.decoding import Decoder, Labelled
from worker.holdout import fraction
from worker.learning.failure import LearningStopped
from worker.learning.learner import Learned, Learner
from worker.learning.samples import Samples, chunks
from worker.material import Material
from worker.recipe_settings import learner_settings

_IMPRINT_MEMORY = 256  # remembered samples that show a new class where the others are
_BATCH = 256


class Teaching:
    """Teaches one model's network by its recipe."""

    def __init__(self, model: Model, decoder: Decoder, device: torch.device, seed: int) -> None:
        self._recipe = Recipe.model_validate(model.recipe)
        self._key = model.holdout_key
        self._decoder = decoder
        self._device = device
        self._seed = seed

    def learn(
        self,
        parent: Network,
        material: Material,
        state: dict[str, Tensor] | None,
        should_stop: Callable[[], bool],
    ) -> Learned:
        """Teach a grown copy of `parent`; `state` is what the learner left with it."""
        spec = parent.spec
        new_labels = material.new_labels(spec.labels)
        rows = {label: row for row, label in enumerate(spec.grown(new_labels).labels)}
        new = self._samples(parent, material.learn, rows)
        memory = self._samples(parent, material.memory, rows)
        if should_stop():
            raise LearningStopped
        network = copy.deepcopy(parent)
        for indices in chunks(range(len(new)), _BATCH):
            standardize(network, new.batch(indices)[0])
        network = self._grown(network, new_labels, new, memory)
        settings = learner_settings(
            self._recipe,
            learned_before=material.learned_before,
            pretrained=parent.spec.weights is not None,
            seed=self._seed,
        )
        learner = Learner(settings, self._device)
        return learner.learn(network, new=new, memory=memory, parent=parent, state=state, should_stop=should_stop)

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

    def _samples(self, network: Network, contents: Sequence[Labelled], rows: dict[int, int]) -> Samples:
        decoded = self._decoder.decode(network.spec, contents)
        contents = [one for one in contents if one.sample_id in decoded]
        return Samples(
            items=[decoded[one.sample_id] for one in contents],
            targets=torch.tensor([rows[one.label_id] for one in contents], dtype=torch.int64),
            keys=torch.tensor(
                [fraction(self._key, one.content_digest, "fold") for one in contents], dtype=torch.float64
            ),
            collate=preprocessor_for(network.spec).batch,
        )
