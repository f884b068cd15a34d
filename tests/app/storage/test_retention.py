from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from app.storage.retention import Retention, scheduled
from app.storage.servers import ServerRoster, ServingReport
from app.storage.tables import ArtifactKind, Verdict, Version
from tests.app.storage.stores import Stores, sample


def test_the_schedule_thins_out_with_age() -> None:
    at = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)

    def version(minutes: float) -> Version:
        return Version(id=str(minutes), created_at=at - timedelta(minutes=minutes))

    ages = [1, 2, 59, 95, 100, 110, 200, 1500, 1600, 5000]
    kept = scheduled([version(minutes) for minutes in ages], at)
    assert kept == {str(minutes) for minutes in (1, 2, 59, 95, 200, 1500, 5000)}


def test_at_most_two_hundred_versions_of_the_last_hour_are_kept() -> None:
    at = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)
    versions = [Version(id=str(n), created_at=at - timedelta(seconds=n)) for n in range(300)]
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
    server.beat(server.arrive("host", 1), [ServingReport(model.id, versions[3].id, 5, warm=(versions[2].id,))])
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
