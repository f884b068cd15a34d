"""What an update's outcome means: the version's row, and what becomes of every revision of its batch.

Steps inside the queue's commit (T3).
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from app.storage.claims import Claim, Outcome
from app.storage.promotions import chunks
from app.storage.revisions import erase_inputs
from app.storage.states import FileState, LedgerRole, RevisionAction, RevisionState, SampleState, Verdict
from app.storage.tables import Artifact, HoldoutScore, Logits, Model, Revision, Sample, Version

JUDGEMENTS = 3  # inconclusive verdicts on batches that held a revision, before it is set aside


def insert_version(session: Session, model: Model, claim: Claim, outcome: Outcome, at: datetime) -> Version:
    number = session.scalars(select(func.max(Version.number)).where(Version.model_id == model.id)).one()
    version = Version(
        id=outcome.version_id,
        model_id=model.id,
        number=number + 1,
        parent_id=claim.parent.id,
        base_id=outcome.base_id,
        update_id=claim.update_id,
        spec=outcome.spec.to_json(),
        recipe=claim.model.recipe,
        recipe_number=claim.model.recipe_number,
        verdict=outcome.verdict,
        reason=outcome.reason,
        metrics=outcome.metrics,
        files=FileState.PRESENT,
        kept=False,
        created_at=at,
    )
    session.add(version)
    session.flush()
    for file in (outcome.weights, outcome.learner_state):
        if file is not None:
            session.add(Artifact(version_id=version.id, kind=file.kind, sha256=file.sha256, nbytes=file.nbytes))
    for version_id, scores in outcome.scores.items():
        _keep_scores(session, version_id, scores)
    for ids in chunks(outcome.logits):
        session.execute(delete(Logits).where(Logits.sample_id.in_(ids)))
        session.execute(
            insert(Logits),
            [
                {
                    "sample_id": sample_id,
                    "version_id": version.id,
                    "labels": list(outcome.spec.labels),
                    "values": outcome.logits[sample_id],
                }
                for sample_id in ids
            ],
        )
    return version


def _keep_scores(session: Session, version_id: str, scores: dict[str, int | None]) -> None:
    for ids in chunks(scores):
        there = set(
            session.scalars(
                select(HoldoutScore.sample_id).where(
                    HoldoutScore.version_id == version_id, HoldoutScore.sample_id.in_(ids)
                )
            )
        )
        rows = [
            {"version_id": version_id, "sample_id": sample_id, "label_id": scores[sample_id]}
            for sample_id in ids
            if sample_id not in there
        ]
        if rows:
            session.execute(insert(HoldoutScore), rows)


def judge_revisions(
    session: Session, revisions: Sequence[Revision], version: Version, outcome: Outcome, at: datetime
) -> None:
    """Give every revision of the batch, and its sample, what the verdict means for it."""
    for ids in chunks([revision.sample_id for revision in revisions]):
        samples = {sample.id: sample for sample in session.scalars(select(Sample).where(Sample.id.in_(ids)))}
        newest = dict(
            session.execute(
                select(Revision.sample_id, func.max(Revision.number))
                .where(Revision.sample_id.in_(ids))
                .group_by(Revision.sample_id)
            ).all()
        )
        for revision in revisions:
            sample = samples.get(revision.sample_id)
            if sample is None:
                continue
            overtaken = revision.number < newest[sample.id]
            revision.update_id = None
            sample.updated_at = at
            if outcome.verdict == Verdict.PROMOTED:
                _learned(session, revision, sample, version, role=outcome.role(revision.id), overtaken=overtaken)
            elif outcome.verdict == Verdict.REJECTED:
                revision.refusals += 1
                _set_aside(revision, sample, f"refused with version {version.number}: {outcome.reason}", overtaken)
            elif revision.action == RevisionAction.REMOVE:
                _requeue(revision, sample, overtaken)  # not counted as judged, so it is claimed again by itself
            elif outcome.too_early:
                # Counted once, so that it waits for company, and never more often, so that it may wait long.
                revision.judgements = max(revision.judgements, 1)
                _requeue(revision, sample, overtaken)
                _explain(sample, version, outcome)
            else:
                revision.judgements += 1
                if revision.judgements >= JUDGEMENTS:
                    reason = f"no evidence after {revision.judgements} judgements, the last: {outcome.reason}"
                    _set_aside(revision, sample, reason, overtaken)
                else:
                    _requeue(revision, sample, overtaken)
                    _explain(sample, version, outcome)
    session.flush()


def _learned(
    session: Session, revision: Revision, sample: Sample, version: Version, *, role: LedgerRole, overtaken: bool
) -> None:
    revision.state, revision.last_error = RevisionState.LEARNED, None
    sample.version_id = version.id
    if revision.action == RevisionAction.REMOVE:
        sample.in_line = False
        if sample.state == SampleState.WITHDRAWN:
            erase_inputs(session, [sample.id])
        return
    sample.side = role
    sample.in_line = True
    if not overtaken:
        sample.state = SampleState.LEARNED if role == LedgerRole.LEARN else SampleState.HELD_OUT
        sample.reason = None
    elif sample.state == SampleState.CLAIMED:
        sample.state = SampleState.QUEUED  # its correction waits


def _set_aside(revision: Revision, sample: Sample, reason: str, overtaken: bool) -> None:
    revision.last_error = reason
    if revision.action == RevisionAction.REMOVE:
        revision.state = RevisionState.QUEUED  # a withdrawal is a fact; no verdict stops it
        return
    revision.state = RevisionState.SUPERSEDED if overtaken else RevisionState.QUARANTINED
    if not overtaken:
        sample.state, sample.reason = SampleState.QUARANTINED, reason
    elif sample.state == SampleState.CLAIMED:
        sample.state = SampleState.QUEUED


def _requeue(revision: Revision, sample: Sample, overtaken: bool) -> None:
    revision.state = RevisionState.SUPERSEDED if overtaken else RevisionState.QUEUED
    if sample.state == SampleState.CLAIMED:
        sample.state = SampleState.QUEUED


def _explain(sample: Sample, version: Version, outcome: Outcome) -> None:
    if sample.state == SampleState.QUEUED:
        sample.reason = f"waits to be judged with more: version {version.number} was inconclusive, {outcome.reason}"
