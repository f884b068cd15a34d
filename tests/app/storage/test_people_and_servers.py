import pytest

from app.errors import AlreadyExists, Invalid, UnknownKey, UnknownModel
from app.storage.events import EventLog
from app.storage.keys import KeyRing
from app.storage.servers import ServerRoster, ServingReport
from tests.app.storage.stores import Stores, sample


def test_a_key_is_found_by_its_secret_until_it_is_revoked(stores: Stores) -> None:
    ring = KeyRing(stores.database)
    key, secret = ring.create("labeller", "label")
    found = ring.find(secret)
    assert found is not None
    assert (found.id, found.scope) == (key.id, "label")
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
    roster.beat(server, [ServingReport(live.model.id, live.version.id, 1)])
    roster.beat(server, [], changed=False)
    assert [(state.version_id, state.epoch) for state in roster.fresh(live.model.id)] == [(live.version.id, 1)]
    roster.leave(server)
    assert roster.fresh(live.model.id) == []
