"""What must hold of the database after any history whatsoever."""

from collections import Counter, defaultdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.storage.database import Database
from app.storage.promotions import ancestry, last_promotion
from app.storage.tables import (
    Assignment,
    LedgerEntry,
    Payload,
    Promotion,
    Revision,
    Sample,
    Update,
    Version,
)


def check(database: Database, model_id: int) -> None:
    """Raise AssertionError at the first promise that does not hold."""
    with database.sessions() as session, session.begin():
        _check_pointer(session, model_id)
        line = set(ancestry(session, last_promotion(session, model_id).version_id))
        revisions = session.scalars(select(Revision).where(Revision.model_id == model_id)).all()
        entries = session.scalars(select(LedgerEntry)).all()
        taught = {entry.revision_id: entry for entry in entries if entry.version_id in line}
        counted = Counter(entry.revision_id for entry in entries if entry.version_id in line)
        assert all(count == 1 for count in counted.values()), "a revision was learned twice into the line"
        running = set(session.scalars(select(Update.id).where(Update.state == "running")))
        by_sample: dict[str, list[Revision]] = defaultdict(list)
        for revision in sorted(revisions, key=lambda revision: revision.number):
            by_sample[revision.sample_id].append(revision)
            assert (revision.state == "claimed") == (revision.update_id in running if revision.update_id else False)
            assert (revision.state == "learned") == (revision.id in taught), (revision.id, revision.state)
        payloads = set(session.scalars(select(Payload.sample_id)))
        for sample in session.scalars(select(Sample).where(Sample.model_id == model_id)):
            _check_sample(sample, by_sample[sample.id], taught, sample.id in payloads)


def _check_pointer(session: Session, model_id: int) -> None:
    promotions = session.scalars(
        select(Promotion).where(Promotion.model_id == model_id).order_by(Promotion.epoch)
    ).all()
    assert [promotion.epoch for promotion in promotions] == list(range(1, len(promotions) + 1))
    live = session.get_one(Assignment, (model_id, "live"))
    assert (live.version_id, live.epoch) == (promotions[-1].version_id, promotions[-1].epoch)
    running = session.scalars(select(Update.lane).where(Update.model_id == model_id, Update.state == "running")).all()
    assert len(running) == len(set(running))
    updates = session.scalars(select(Version.update_id).where(Version.update_id.is_not(None))).all()
    assert len(updates) == len(set(updates)), "an update made two versions"


def _check_sample(sample: Sample, revisions: list[Revision], taught: dict[int, LedgerEntry], payload: bool) -> None:
    newest = revisions[-1]
    words = (sample.id, sample.state, [(r.action, r.state) for r in revisions])
    if any(revision.state in ("queued", "waiting") for revision in revisions[:-1]):
        assert newest.state in ("queued", "waiting"), words  # the next claim will see that it was overtaken
    if sample.state == "learned" and sample.in_line:
        assert newest.id in taught, words
        assert taught[newest.id].role == "learn", words
    if sample.state == "learned" and not sample.in_line:
        assert newest.state == "abandoned", words
    if sample.state == "held_out":
        assert sample.in_line, words
        assert newest.id in taught, words
        assert taught[newest.id].role in ("holdout", "test"), words
    if sample.state == "queued":
        assert newest.state in ("queued", "waiting"), words
    if sample.state == "claimed":
        assert any(revision.state == "claimed" for revision in revisions), words
    if sample.state == "withdrawn":
        assert newest.action == "remove", words
    if newest.action != "remove":
        assert payload, words
    if sample.in_line:
        assert any(revision.id in taught for revision in revisions), words
