"""What a recipe spells beyond the defaults, through a whole update with real stores."""

import pytest
from sqlalchemy import delete, select
from torch import nn

from app.networks.spec import NetworkSpec
from app.storage.tables import Logits, Payload
from tests.worker.school import School
from worker.learning.failure import LearningFailed


def test_remembered_logits_are_those_of_the_version_that_learned_the_sample(school: School) -> None:
    model = school.create(rehearsal={"kind": "der_pp"}, memory={"capacity": 100})
    first = school.post(model, range(60))
    version = school.learn(model)
    school.post(model, range(60, 120))

    after = school.learn(model)

    assert (version.verdict, after.verdict) == ("promoted", "promoted"), after.reason
    with school.database.sessions() as session:
        kept = {row.sample_id: row for row in session.scalars(select(Logits))}
    learned = {receipt.sample.id for receipt in school.receipts.list(model, state="learned", limit=200)}
    assert set(kept) == learned
    old = [kept[sample_id] for sample_id in first if sample_id in kept]
    assert {row.version_id for row in old} == {version.id}
    labels = NetworkSpec.from_json(version.spec).labels
    assert all((tuple(row.labels), len(row.values)) == (labels, 4 * len(labels)) for row in old)


def test_a_version_that_changed_only_its_head_is_a_delta(school: School) -> None:
    model = school.create(trainable="head")
    school.post(model, range(250))
    school.learn(model)  # the input's scales are learned with it
    school.post(model, range(250, 400))

    version = school.learn(model)

    assert version.base_id is not None
    network = school.loader.load(version)
    assert isinstance(network, nn.Module)
    assert version.metrics["delta"] is True


@pytest.mark.parametrize("penalty", [{"kind": "ewc"}, {"kind": "lwf"}, {"kind": "l2_sp", "anchor": "previous"}])
def test_every_penalty_of_a_recipe_reaches_the_learner(school: School, penalty: dict[str, str]) -> None:
    model = school.create(penalties=[penalty])
    school.post(model, range(60))
    school.learn(model)
    school.post(model, range(60, 160))

    version = school.learn(model)

    assert version.verdict == "promoted", version.reason


def test_a_loss_that_the_builder_does_not_bring_fails_the_update_with_the_remedy(school: School) -> None:
    model = school.create(penalties=[{"kind": "own", "name": "smoothness"}])
    school.post(model, range(60))
    claim = school.claim(model)

    with pytest.raises(Exception, match="there is no loss 'smoothness'"):
        school.updater().perform(claim)

    assert school.registry.live(model.id).version.number == 1


def test_a_memory_whose_inputs_are_gone_fails_the_update_with_the_remedy(school: School) -> None:
    model = school.create()
    school.post(model, range(60))
    live = school.learn(model)
    with school.database.sessions.begin() as session:
        session.execute(delete(Payload))
    school.post(model, range(60, 100))
    claim = school.claim(model)

    with pytest.raises(LearningFailed, match=r"memory: the stored inputs of all \d+ samples .* memory.capacity to 0"):
        school.updater().perform(claim)
    assert school.live(model).id == live.id
