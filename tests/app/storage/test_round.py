from tests.app.storage.stores import Stores, sample


def test_a_posted_sample_is_claimed_learned_and_served(stores: Stores) -> None:
    live = stores.create()
    ids = stores.post(live.model, sample(1), sample(2, "b"))
    assert [stores.state(live.model, i) for i in ids] == ["queued", "queued"]
    claim = stores.claim(live.model)
    assert stores.claimed(claim) == [b"content 1", b"content 2"]
    assert stores.state(live.model, ids[0]) == "claimed"
    version = stores.queue.commit(claim, stores.outcome(claim))
    assert stores.state(live.model, ids[0]) == "learned"
    now_live = stores.registry.live(live.model.id)
    assert (now_live.version.id, now_live.epoch, now_live.falls_back_to) == (version.id, 2, live.version.id)
    assert stores.remembered(live.model) == [b"content 1", b"content 2"]
