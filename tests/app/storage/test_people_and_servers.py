import pytest

from app.batching import Batching
from app.errors import AlreadyExists, Invalid, UnknownKey, UnknownModel
from app.recipe import Recipe
from app.storage.events import EventLog
from app.storage.keys import KeyRing
from app.storage.servers import ServerRoster, ServingReport
from app.storage.settling import Fate
from tests.app.storage.stores import Stores, sample


def test_a_key_is_found_by_its_secret_until_it_is_revoked(stores: Stores) -> None:
    ring = KeyRing(stores.database)
    key, secret = ring.create("labeller", "label")
    found = ring.find(secret)
    assert found is not None
    assert (found.name, found.scope) == (key.name, "label") == ("labeller", "label")
    assert secret.startswith("prn_")
    assert ring.find(secret + "x") is None
    ring.revoke(key.id)
    assert ring.find(secret) is None
    assert secret not in str([vars(row) for row in ring.list()])


def test_keys_have_one_of_three_scopes(stores: Stores) -> None:
    ring = KeyRing(stores.database)
    with pytest.raises(Invalid):
        ring.create("root", "root")
    with pytest.raises(UnknownKey):
        ring.revoke(99)


def test_the_first_admin_is_made_once_and_a_given_key_is_taken_as_it_is(stores: Stores) -> None:
    ring = KeyRing(stores.database)
    secret = ring.ensure_admin()
    assert secret is not None
    assert ring.ensure_admin() is None
    given = "a-key-of-our-own-that-is-long-enough"
    assert ring.ensure_admin(given) is None
    assert ring.ensure_admin(given) is None
    found = ring.find(given)
    assert found is not None
    assert found.scope == "admin"
    assert len(ring.list()) == 2


def test_a_model_is_created_once(stores: Stores) -> None:
    live = stores.create()
    assert (live.version.number, live.epoch, live.version.files) == (1, 1, "none")
    with pytest.raises(AlreadyExists):
        stores.create()
    with pytest.raises(UnknownModel):
        stores.registry.model("cats")


def test_the_mark_of_what_is_assigned_moves_with_all_that_servers_follow_and_with_nothing_else(stores: Stores) -> None:
    marks = [stores.registry.assignment_mark()]

    def moved() -> bool:
        marks.append(stores.registry.assignment_mark())
        return marks[-1] != marks[-2]

    model = stores.create().model
    assert moved()
    stores.post(model, sample(1))
    stores.registry.change_recipe("digits", Recipe(), "ann")
    assert not moved()
    stores.learn(model)
    assert moved()
    stores.registry.change_batching("digits", Batching(window_ms=5.0), "ann")
    assert moved()
    stores.steering.roll_back("digits", to=None, samples=Fate.QUARANTINE, pin=False, reason="", actor="ann")
    assert moved()
    assert not moved()


def test_every_move_of_the_pointer_is_in_the_audit_log(stores: Stores) -> None:
    model = stores.create().model
    stores.post(model, sample(1))
    stores.learn(model)
    stores.steering.set_pinned("digits", True, reason="holiday", actor="ann")
    events = EventLog(stores.database).list(model.id, None, 10)
    assert [(event.kind, event.actor, event.reason) for event in events] == [
        ("model.pinned", "ann", "holiday"),
        ("version.promoted", "worker", "because"),
        ("model.created", "tester", ""),
    ]
    assert [event.kind for event in EventLog(stores.database).list(None, events[0].id, 1)] == ["version.promoted"]


def test_a_server_is_fresh_until_it_leaves(stores: Stores) -> None:
    live = stores.create()
    roster = ServerRoster(stores.database)
    server = roster.arrive("host", 1)
    assert [state.epoch for state in roster.fresh(live.model.id)] == [0]
    assert roster.report(server, [ServingReport(live.model.id, live.version.id, 1)])
    assert roster.beat(server)
    assert [(state.version_id, state.epoch) for state in roster.fresh(live.model.id)] == [(live.version.id, 1)]
    roster.leave(server)
    assert roster.fresh(live.model.id) == []
    assert not roster.beat(server), "who has left is not known"
    assert not roster.report(server, [])
