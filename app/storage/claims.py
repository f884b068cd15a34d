"""What a claim is made of: which revisions, and what the worker needs to know of each.

Steps inside the queue's transaction, and the data that crosses from the queue to an update and back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.networks.spec import NetworkSpec
from app.storage.promotions import chunks
from app.storage.revisions import erase_inputs
from app.storage.states import Lane, LedgerRole, RevisionAction, RevisionState, SampleState, UpdateKind, Verdict
from app.storage.tables import Model, Revision, Sample, Version
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
    side: str | None
    known: bool


@dataclass(frozen=True)
class Claim:
    """What an update works on, and from where. A slow update beside a fast lane claims no revisions.

    `relatives` are the claims of the other models on the same backbone, in whose company alone this one is committed.
    """

    update_id: int
    model: Model
    parent: Version
    epoch: int
    revisions: tuple[ClaimedRevision, ...]
    worker: str
    lane: Lane = Lane.SLOW
    kind: UpdateKind = UpdateKind.LEARN
    relatives: tuple["Claim", ...] = ()

    @property
    def update_ids(self) -> tuple[int, ...]:
        """Its own update and those of its relatives: they end together."""
        return self.update_id, *(one.update_id for one in self.relatives)


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
    base_id: str | None = None  # the full version that `weights` are a delta of
    held_out: frozenset[int] = frozenset()  # ids of revisions on the holdout side
    tests: frozenset[int] = frozenset()  # ids of revisions that are only reported on
    logits: dict[str, bytes] = field(default_factory=dict)  # sample id → the candidate's logits, float32
    scores: dict[str, dict[str, int | None]] = field(default_factory=dict)  # version id → sample id → label id
    too_early: bool = False  # inconclusive for want of samples: nothing is set aside for that

    def role(self, revision_id: int) -> LedgerRole:
        """On which side of the split the revision is."""
        if revision_id in self.tests:
            return LedgerRole.TEST
        return LedgerRole.HOLDOUT if revision_id in self.held_out else LedgerRole.LEARN


def newest_only(session: Session, revisions: Sequence[Revision]) -> list[Revision]:
    """Drop what a later revision of the same sample has overtaken, and removals of what was never learned.

    What was overtaken leaves the queue even where this claim did not reach it.
    """
    kept: list[Revision] = []
    for some in chunks(revisions):
        ids = {revision.sample_id for revision in some}
        samples = {sample.id: sample for sample in session.scalars(select(Sample).where(Sample.id.in_(ids)))}
        newest: dict[str, int] = {}
        query = select(Revision).where(Revision.sample_id.in_(ids)).order_by(Revision.sample_id, Revision.number.desc())
        for revision in session.scalars(query):
            if revision.number < newest.setdefault(revision.sample_id, revision.number):
                if revision.state in (RevisionState.QUEUED, RevisionState.WAITING):
                    revision.state = RevisionState.SUPERSEDED
            elif revision.action == RevisionAction.REMOVE and not samples[revision.sample_id].in_line:
                revision.state = RevisionState.SUPERSEDED
                if samples[revision.sample_id].state == SampleState.WITHDRAWN:
                    erase_inputs(session, [revision.sample_id])
        kept += [revision for revision in some if revision.state == RevisionState.QUEUED]
    session.flush()
    return kept


def describe(session: Session, model_id: int, revisions: Sequence[Revision]) -> tuple[ClaimedRevision, ...]:
    samples: dict[str, Sample] = {}
    for ids in chunks([revision.sample_id for revision in revisions]):
        samples.update({sample.id: sample for sample in session.scalars(select(Sample).where(Sample.id.in_(ids)))})
    sides: dict[str, str] = {}
    known: set[tuple[str, int]] = set()
    for digests in chunks({sample.content_digest for sample in samples.values()}):
        for twin in session.scalars(
            select(Sample).where(
                Sample.model_id == model_id, Sample.content_digest.in_(digests), Sample.side.is_not(None)
            )
        ):
            # What any version was trained on judges none, should two lines have split a content differently.
            if sides.get(twin.content_digest) != LedgerRole.LEARN:
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
            side=sides.get(samples[revision.sample_id].content_digest),
            known=(samples[revision.sample_id].content_digest, revision.label_id) in known,
        )
        for revision in revisions
    )
