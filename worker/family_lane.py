"""The slow lane of models that share a backbone: it learns from what all of them hold, and moves for all or for none.

Called by the Updater. Claims nothing. Each member is judged against its own live version by its own gate; one that
refuses holds all back. What is published is one file with the backbone, and a head for each other member.
"""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from torch import nn

from app.errors import Conflict, NothingLearned
from app.ingredients import L2SP, LwF
from app.networks.network import Network
from app.networks.serialization import HEAD, tensors_digest
from app.networks.standardize import FROZEN_AFTER, standardize
from app.storage.claims import Outcome
from app.storage.line import Stored
from app.storage.tables import Version
from worker.attempt import Attempt, commit_together
from worker.decoding import Decoder
from worker.family_verdict import verdicts
from worker.featuring import FeatureSource
from worker.learning.failure import LearningStopped
from worker.learning.family import Member, SharedNetwork, learn_family
from worker.learning.learner import Learned
from worker.learning.samples import Samples
from worker.material import Material, gather
from worker.recipe_settings import learner_settings
from worker.refined import Refined, refined
from worker.refit import on_backbone
from worker.sight import Seer, Sight
from worker.slow import held
from worker.sums_of_the_line import SumsOfTheLine
from worker.teaching import require_inputs, samples_of


class FamilyLane:
    """Performs slow updates of families, one at a time."""

    def __init__(self, decoder: Decoder, source: FeatureSource, sums: SumsOfTheLine) -> None:
        self._decoder = decoder
        self._source = source
        self._sums = sums

    def perform(self, attempt: Attempt) -> Version:
        """Learn from all members, extract features again, judge each, publish all or none; the leader's version."""
        parts = [attempt, *(attempt.beside(claim) for claim in attempt.claim.relatives)]
        with attempt.timed("load"):
            networks = [part.loader.load(part.claim.parent) for part in parts]
            _require_one_backbone(parts)
            materials = [gather(part.claim, part.recipe, part.stores.line) for part in parts]
            memories = _to_rehearse(materials, networks)
        if not any(memories):
            raise NothingLearned(attempt.claim.model.name)
        with attempt.timed("learn"):
            learned = self._learned(parts, networks, materials, memories)
        attempt.kill_point("after_training")
        assert isinstance(learned.network, SharedNetwork)
        backbone = learned.network.backbone.to(attempt.device)
        digest = tensors_digest(backbone.state_dict(), attempt.pause)
        seers = [Seer(on_backbone(network, backbone), digest) for network in networks]
        with attempt.timed("features"):
            for part, seer, material in zip(parts, seers, materials, strict=True):
                model = part.claim.model
                contents = [*part.stores.line.learned(model), *material.settled, *material.tests]
                Sight(self._source, model, part.between_steps).fed(seer, contents)
        with ExitStack() as still:
            for part in parts:
                still.enter_context(held(part))
            made = [refined(part, self._source, self._sums, seer) for part, seer in zip(parts, seers, strict=True)]
            return self._published(made, learned, [len(memory) for memory in memories])

    def _learned(
        self,
        parts: Sequence[Attempt],
        networks: Sequence[Network],
        materials: Sequence[Material],
        memories: Sequence[Sequence[Stored]],
    ) -> Learned:
        """Teach the shared layers by the leading member's recipe, a head of each member learning along."""
        attempt, spec = parts[0], networks[0].spec
        recipe = attempt.recipe
        if not recipe.steps:
            raise Conflict(
                "recipe.trainable: 'head' with a head that is solved moves no shared layer; choose trainable "
                f"'last_blocks', 'bitfit' or 'all' for {attempt.claim.model.name!r}, which leads this update."
            )
        members = []
        for network, memory in zip(networks, memories, strict=True):
            rows = {label: row for row, label in enumerate(network.spec.labels)}
            # One secret for all: a content that two members hold is in the fold for both, or for neither.
            samples, _ = samples_of(self._decoder, spec, memory, rows, attempt.claim.model.holdout_key)
            require_inputs(memory, samples)
            members.append(Member(_head_of(network), len(rows), samples))
        if attempt.stopping():
            raise LearningStopped
        backbone = copy.deepcopy(networks[0].backbone).cpu()
        _see(backbone, [member.samples for member in members])
        settings = learner_settings(
            recipe,
            learned_before=sum(material.learned_before for material in materials),
            pretrained=spec.weights is not None,
            seed=attempt.seed,
        )
        anchored = any(isinstance(one, L2SP) and one.anchor == "pretrained" for one in recipe.penalties)
        return learn_family(
            backbone,
            members,
            # What it held of answers is held of features, which are every member's.
            replace(settings, penalties=tuple(one for one in settings.penalties if one.kind != "lwf")),
            distillation=next((one.strength for one in recipe.penalties if isinstance(one, LwF)), LwF().strength),
            pretrained=attempt.loader.untaught(spec).backbone if anchored else None,
            state=attempt.left_behind(attempt.claim.parent)[1],
            device=attempt.device,
            should_stop=attempt.stopping,
        )

    def _published(self, found: Sequence[Refined], learned: Learned, rehearsed: Sequence[int]) -> Version:
        """Write the backbone once, with the leader's head, and of the others the heads; commit all in one step."""
        made = verdicts(found)
        leader = made[0].attempt
        outcomes: list[tuple[Attempt, Outcome]] = []
        try:
            for one, count in zip(made, rehearsed, strict=True):
                weights, base_id = one.candidate.network.state_dict(), None
                one.taught.beside = learned.state
                if one.attempt is not leader:
                    weights = {name: tensor for name, tensor in weights.items() if name.startswith(HEAD)}
                    base_id = leader.version_id
                files = one.attempt.write(weights, one.state())
                outcomes.append((one.attempt, one.outcome(learned.record, count, files, base_id=base_id)))
        except BaseException:
            for attempt, _ in outcomes:
                attempt.stores.weights.delete(attempt.version_id)
            raise
        versions = commit_together(outcomes)
        for one, version in zip(made, versions, strict=True):
            one.settle(version, self._sums)
        return versions[0]


def _require_one_backbone(parts: Sequence[Attempt]) -> None:
    """Raise Conflict where a rollback or a promotion by hand left members on different backbones."""
    digests = [part.loader.backbone_of(part.claim.parent)[1] for part in parts]
    if len(set(digests)) == 1:
        return
    where = ", ".join(
        f"{part.claim.model.name!r} version {part.claim.parent.number} (backbone {digest[:8]})"
        for part, digest in zip(parts, digests, strict=True)
    )
    raise Conflict(
        f"The members of this family stand on different backbones, so they cannot learn as one: {where}. Roll back or "
        "promote single members until all stand on the same one; versions published together share theirs."
    )


def _to_rehearse(materials: Sequence[Material], networks: Sequence[Network]) -> list[list[Stored]]:
    """Each member's memory without what any member holds out: the shared layers may not have seen what judges them."""
    apart = {one.content_digest for material in materials for one in (*material.settled, *material.tests)}
    return [
        [one for one in material.memory if one.content_digest not in apart and one.label_id in network.spec.labels]
        for material, network in zip(materials, networks, strict=True)
    ]


def _head_of(network: Network) -> nn.Module:
    """What maps the backbone's features to the member's logits."""
    head = copy.deepcopy(network.head).cpu()
    plain = network.spec.power is None and not network.spec.projection
    return head if plain else nn.Sequential(network.power, network.projection, head)


def _see(backbone: nn.Module, samples: Sequence[Samples]) -> None:
    """Let layers that standardize learn the scales of the inputs, from as many samples of each member."""
    size = FROZEN_AFTER // len(samples)
    for one in samples:
        spread = range(0, len(one), max(1, len(one) // size))[:size]  # a memory stands in the order of its classes
        if spread:
            standardize(backbone, one.batch(spread)[0])
