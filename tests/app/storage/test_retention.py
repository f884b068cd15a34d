import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import event, insert, update

from app.recipe import FeaturesInput, NetworkChoice, NewModel
from app.storage.promotions import chunks
from app.storage.retention import Retention, Stored, scheduled
from app.storage.servers import ServerRoster, ServingReport
from app.storage.states import ArtifactKind, FileState, Verdict
from app.storage.tables import Model, Update, Version
from tests.app.storage.stores import Stores, sample


def stored(version_id: str, at: datetime) -> Stored:
    return Stored(version_id, None, FileState.PRESENT, False, at)


def test_the_schedule_thins_out_with_age() -> None:
    at = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)

    ages = [1, 2, 59, 95, 100, 110, 200, 1500, 1600, 5000]
    kept = scheduled([stored(str(minutes), at - timedelta(minutes=minutes)) for minutes in ages], at)
    assert kept == {str(minutes) for minutes in (1, 2, 59, 95, 200, 1500, 5000)}


def test_at_most_two_hundred_versions_of_the_last_hour_are_kept() -> None:
    at = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)
    versions = [stored(str(n), at - timedelta(seconds=n)) for n in range(300)]
    assert len(scheduled(versions, at)) == 200


def test_old_files_go_but_not_what_anyone_needs(stores: Stores) -> None:
    model = stores.create().model
    versions = []
    for number in range(6):
        stores.post(model, sample(number))
        versions.append(stores.learn(model))
    old = datetime.now(UTC) - timedelta(days=3)
    with stores.database.sessions.begin() as session:
        session.execute(update(Version).values(created_at=old))
        session.execute(update(Version).where(Version.number == 2).values(kept=True))
    server = ServerRoster(stores.database)
    server.report(server.arrive("host", 1), [ServingReport(model.id, versions[3].id, 5, warm=(versions[2].id,))])
    # Of one day one version stays (the newest, 7); 6 is what 7 falls back to; 5 and 4 a server has; 2 is kept by hand.
    assert Retention(stores.database, stores.weights).collect() == 1
    files = {version.number: version.files for version in stores.registry.versions(model.id, None, 10)}
    assert files == {1: "none", 2: "present", 3: "deleted", 4: "present", 5: "present", 6: "present", 7: "present"}
    assert stores.registry.artifacts(versions[1].id)[ArtifactKind.WEIGHTS].sha256
    assert Retention(stores.database, stores.weights).collect() == 0


def test_what_live_falls_back_to_keeps_its_learner_state_and_its_anchor(stores: Stores) -> None:
    model = stores.create().model
    versions = []
    for number in range(15):
        stores.post(model, sample(number))
        claim = stores.claim(model)
        outcome = stores.outcome(claim, Verdict.PROMOTED if number < 4 else Verdict.REJECTED)
        state = stores.weights.write(outcome.version_id, ArtifactKind.LEARNER_STATE, b"momentum")
        versions.append(stores.queue.commit(claim, replace(outcome, learner_state=state)))
    anchor, back, live = versions[0], versions[2], versions[3]
    with stores.database.sessions.begin() as session:
        session.execute(update(Version).values(created_at=datetime.now(UTC) - timedelta(days=3)))
        session.execute(update(Version).where(Version.id == back.id).values(metrics={"anchor": anchor.id}))
        session.execute(update(Version).where(Version.number > live.number).values(kept=True))
    Retention(stores.database, stores.weights).collect()
    files = {version.id: version.files for version in stores.registry.versions(model.id, None, 20)}
    assert [files[version.id] for version in versions[:4]] == ["present", "deleted", "present", "present"]
    assert ArtifactKind.LEARNER_STATE in stores.registry.artifacts(back.id)
    assert ArtifactKind.LEARNER_STATE in stores.registry.artifacts(live.id)
    assert ArtifactKind.LEARNER_STATE not in stores.registry.artifacts(anchor.id)


def test_what_a_version_said_of_held_out_samples_goes_with_its_files(stores: Stores) -> None:
    model = stores.create().model
    versions = []
    (held,) = stores.post(model, sample(0))
    for number in range(1, 5):
        stores.post(model, sample(number))
        claim = stores.claim(model)
        outcome = stores.outcome(claim)
        outcome.scores[outcome.version_id] = {held: 1}
        versions.append(stores.queue.commit(claim, outcome))
    with stores.database.sessions.begin() as session:
        session.execute(update(Version).values(created_at=datetime.now(UTC) - timedelta(days=3)))
    assert Retention(stores.database, stores.weights).collect() == 2
    assert [stores.line.scores(version.id, [held]) for version in versions] == [{}, {}, {held: 1}, {held: 1}]


OLD = datetime.now(UTC) - timedelta(days=3)


def stand(
    stores: Stores, model: Model, count: int = 1, base: str | None = None, at: datetime = OLD, **values: object
) -> list[str]:
    """Put versions with real files into the line of a model, all of one age and never promoted; their ids."""
    parent = stores.registry.versions(model.id, None, 1)[0]
    folder = stores.weights._root
    ids = [str(uuid.uuid4()) for _ in range(count)]
    for version_id in ids:
        path = folder / version_id[-2:] / f"{version_id}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"numbers")
    rows = [
        {
            "id": version_id,
            "model_id": model.id,
            "number": number,
            "parent_id": parent.id,
            "base_id": base,
            "spec": parent.spec,
            "recipe": {},
            "recipe_number": 1,
            "verdict": Verdict.INCONCLUSIVE,
            "reason": "",
            "metrics": {},
            "files": FileState.PRESENT,
            "kept": False,
            "created_at": at,
            **values,
        }
        for number, version_id in enumerate(ids, start=parent.number + 1)
    ]
    with stores.database.sessions.begin() as session:
        for some in chunks(rows):
            session.execute(insert(Version), some)
    return ids


def files(stores: Stores) -> set[str]:
    """The ids of the versions that have a file on the disk."""
    return {path.name.split(".")[0] for path in stores.weights._root.glob("??/*")}


def test_a_base_stays_while_a_delta_over_it_does_and_goes_with_the_last(stores: Stores) -> None:
    model = stores.create().model
    (base,) = stand(stores, model)
    (delta,) = stand(stores, model, base=base, kept=True)
    stand(stores, model, 5, base=base)  # of these the newest stays, as the one of its day
    retention = Retention(stores.database, stores.weights)
    assert retention.collect() == 4
    assert {base, delta} < files(stores)

    with stores.database.sessions.begin() as session:
        session.execute(update(Version).where(Version.base_id == base).values(kept=False, created_at=OLD))
    stand(stores, model)  # newer, of the same day, and no delta

    assert retention.collect() == 3
    assert base not in files(stores)
    assert stores.registry.version_by_id(base).files == "deleted"


def test_a_base_that_another_model_s_delta_needs_stays(stores: Stores) -> None:
    model = stores.create().model
    other = stores.registry.create(
        NewModel(name="other", input=FeaturesInput(size=4), network=NetworkChoice(architecture="mlp")), "tester"
    ).model
    (base,) = stand(stores, model)
    stand(stores, model)
    (delta,) = stand(stores, other, base=base)
    retention = Retention(stores.database, stores.weights)
    retention.collect()
    assert {base, delta} <= files(stores)

    with stores.database.sessions.begin() as session:
        first = Version.model_id == other.id, Version.number == 1
        session.execute(update(Version).where(Version.id == delta).values(base_id=None))
        session.execute(update(Version).where(*first).values(base_id=base))
    retention.collect()
    assert base in files(stores), "the other's first version has no file, but stands on this one"


def test_the_bases_of_what_an_update_starts_from_and_of_what_a_server_serves_stay(stores: Stores) -> None:
    model = stores.create().model
    bases = stand(stores, model, 2)
    (served,) = stand(stores, model, base=bases[0])
    (parent,) = stand(stores, model, base=bases[1])
    stand(stores, model, 3)
    server = stores.roster.arrive("host", 1)
    stores.roster.report(server, [ServingReport(model.id, None, 1, warm=(served,))])
    stores.post(model, sample(1))
    claim = stores.claim(model)
    with stores.database.sessions.begin() as session:
        session.execute(update(Update).where(Update.id == claim.update_id).values(parent_id=parent))

    assert Retention(stores.database, stores.weights).collect() == 2

    assert {*bases, served, parent} < files(stores)


def test_ten_thousand_fast_versions_leave_two_hundred_files_and_cost_no_more_at_each_turn(stores: Stores) -> None:
    model = stores.create().model
    (base,) = stand(stores, model)
    stand(stores, model, 9_990, base=base, at=datetime.now(UTC))
    retention = Retention(stores.database, stores.weights)

    assert retention.collect() == 9_990 - 200
    assert len(files(stores)) == 201
    assert base in files(stores)

    newest = stand(stores, model, 10, base=base, at=datetime.now(UTC))
    loaded: list[object] = []

    def note(version: object, context: object) -> None:
        loaded.append(version)

    event.listen(Version, "load", note)
    try:
        assert retention.collect() == 10
    finally:
        event.remove(Version, "load", note)
    assert {base, *newest} < files(stores)
    assert loaded == []  # of the ten thousand only what has files was looked at, and that not whole
