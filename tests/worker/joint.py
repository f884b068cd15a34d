"""What a closed-form head has to be: solved at once from all that the line holds, whatever way led there."""

import torch
from torch import Tensor

from app.networks.preprocessor import preprocessor_for
from app.recipe import Recipe
from app.storage.line import Stored
from app.storage.tables import Model
from tests.worker.school import School
from worker.decoding import Decoder
from worker.learning.closed_form import Solved, discriminant, laid_out, solve
from worker.learning.refinement import START, refined
from worker.learning.strength import Choice
from worker.learning.sums import Sums
from worker.taught import refinement, settings_of


def contents(school: School, model: Model) -> dict[str, Stored]:
    """The line's learned contents, each with its newest sample."""
    return {one.content_digest: one for one in school.line.learned(model)}


def inputs(school: School, model: Model, stored: list[Stored]) -> Tensor:
    """What the live network is fed of them, (samples, …)."""
    network = school.network(model)
    decoded = Decoder(school.line.contents).decode(network.spec, stored)
    return preprocessor_for(network.spec).batch([decoded[one.sample_id] for one in stored])


def joint_head(school: School, model: Model) -> Solved:
    """Solve the head of the live version from the line, with the strength and the scale that it chose."""
    live, network = school.live(model), school.network(model)
    stored = list(contents(school, model).values())
    sums = Sums(network.head_width, "joint")
    with torch.no_grad():
        features = network.features(inputs(school, model, stored))
    sums.add(features, [one.label_id for one in stored], backbone="joint")
    choice = Choice.from_json(live.metrics["choice"])
    recipe = Recipe.model_validate(live.recipe)
    settings = settings_of(recipe)
    if steps := refinement(recipe, choice):
        by_digest = {one.content_digest: row for one, row in zip(stored, features, strict=True)}
        labels = {one.content_digest: one.label_id for one in stored}
        scatter = sums.scatter()
        start = discriminant(scatter, START)
        found = refined(scatter, start, by_digest, labels, steps=steps, scale=choice.scale)
        return laid_out(found, sums.width, network.spec.labels, scale=1.0)
    return solve(sums, settings, network.spec.labels, strength=choice.strength, scale=choice.scale)


def difference(school: School, model: Model) -> float:
    """How far the live head is from the one solved at once: its largest deviation, as a share of its largest number."""
    head, joint = school.network(model).head.state_dict(), joint_head(school, model)
    assert head["weight"].shape == joint.weight.shape
    pairs = ((head["weight"], joint.weight), (head["bias"], joint.bias))
    return max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)
