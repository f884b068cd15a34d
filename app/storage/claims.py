"""What a claim is made of: which revisions, and what the worker needs to know of each.

Steps inside the queue's transaction, and the data that crosses from the queue to an update and back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.networks.spec import NetworkSpec
from app.storage.promotions import chunks
from app.storage.revisions import erase
from app.storage.tables import (
    Model,
    Payload,
    Revision,
    RevisionAction,
    RevisionState,
    Sample,
    SampleState,
    Verdict,
    Version,
)
from app.storage.weights import WeightFile


@dataclass(frozen=True)
class ClaimedRevision:
    """One revision in a worker's hands. `side` is set when this content was split before; `known` when the line
    holds the same content under the same label already, so that it counts once."""

    id: int
    sample_id: str
    action: str
    label_id: int
    content_digest: str
    content: bytes
    side: str | None
    known: bool


@dataclass(frozen=True)
class Claim:
    """What an update works on, and from where."""

    update_id: int
    model: Model
    parent: Version
    epoch: int
    revisions: tuple[ClaimedRevision, ...]
    worker: str


@dataclass(frozen=True)
class Outcome:
    """What an update made of its claim, and what the gate said."""

    version_id: str
    spec: NetworkSpec
    verdict: Verdict
    reason: str
    metrics: dict[str, Any]
    weights: WeightFile
    learner_state: WeightFile | None = None
    held_out: frozenset[int] = frozenset()  # ids of revisions on the holdout side
    scores: dict[str, dict[str, int | None]] = field(default_factory=dict)  # version id → sample id → label id


def payload_sizes(session: Session, sample_ids: Sequence[str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for ids in chunks(sample_ids):
        sizes.update(dict(session.execute(select(Sample.id, Sample.nbytes).where(Sample.id.in_(ids))).all()))
    return sizes


def newest_only(session: Session, revisions: Sequence[Revision], at: datetime) -> list[Revision]:
    """Drop what a later revision of the same sample has overtaken, and removals of what was never learned."""
    kept = []
    newest: dict[str, int] = {}
    learned: set[str] = set()
    withdrawn: set[str] = set()
    for ids in chunks({revision.sample_id for revision in revisions}):
        rows = session.execute(
            select(Revision.sample_id, func.max(Revision.number))
            .where(Revision.sample_id.in_(ids))
            .group_by(Revision.sample_id)
        )
        newest.update(dict(rows.all()))
        learned.update(session.scalars(select(Sample.id).where(Sample.id.in_(ids), Sample.in_line)))
        gone = select(Sample.id).where(Sample.id.in_(ids), Sample.state == SampleState.WITHDRAWN)
        withdrawn.update(session.scalars(gone))
    for revision in revisions:
        nothing_to_remove = revision.action == RevisionAction.REMOVE and revision.sample_id not in learned
        if revision.number < newest[revision.sample_id] or nothing_to_remove:
            revision.state = RevisionState.SUPERSEDED
            if nothing_to_remove and revision.sample_id in withdrawn:
                erase(session, [revision.sample_id])
        else:
            kept.append(revision)
    session.flush()
    return kept


def describe(session: Session, model_id: int, revisions: Sequence[Revision]) -> tuple[ClaimedRevision, ...]:
    samples: dict[str, Sample] = {}
    contents: dict[str, bytes] = {}
    for ids in chunks([revision.sample_id for revision in revisions]):
        samples.update({sample.id: sample for sample in session.scalars(select(Sample).where(Sample.id.in_(ids)))})
        rows = session.execute(select(Payload.sample_id, Payload.content).where(Payload.sample_id.in_(ids)))
        contents.update(dict(rows.all()))
    sides: dict[str, str] = {}
    known: set[tuple[str, int]] = set()
    for digests in chunks({sample.content_digest for sample in samples.values()}):
        for twin in session.scalars(
            select(Sample).where(
                Sample.model_id == model_id, Sample.content_digest.in_(digests), Sample.side.is_not(None)
            )
        ):
            sides[twin.content_digest] = twin.side or ""
            if twin.in_line and twin.state in (SampleState.LEARNED, SampleState.HELD_OUT):
                known.add((twin.content_digest, twin.label_id))
    return tuple(
        ClaimedRevision(
            id=revision.id,
            sample_id=revision.sample_id,
            action=revision.action,
            label_id=revision.label_id,
            content_digest=samples[revision.sample_id].content_digest,
            content=contents.get(revision.sample_id, b""),
            side=sides.get(samples[revision.sample_id].content_digest),
            known=(samples[revision.sample_id].content_digest, revision.label_id) in known,
        )
        for revision in revisions
    )
