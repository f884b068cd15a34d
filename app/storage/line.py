"""What the line holds: the memory to rehearse from and the holdout to judge with. Read by the worker.

Both follow from the samples' states alone, so they are right by themselves after a rollback, a withdrawal or a
correction: no counter, no cursor, nothing to rewind.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from app.storage.database import Database, literal, reads
from app.storage.promotions import chunks
from app.storage.states import LedgerRole, RevisionState, SampleState
from app.storage.tables import HoldoutScore, Logits, Model, Payload, Revision, Sample

HOLDOUT_CAP = 2000


@dataclass(frozen=True)
class Stored:
    """A sample of the line; its input's bytes are read when they are needed."""

    sample_id: str
    label_id: int
    content_digest: str


class LineReader:
    """Reads the samples of a model's line."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @reads
    def memory(
        self, session: Session, model: Model, capacity: int, exclude: Collection[str] = frozenset()
    ) -> list[Stored]:
        """Per class the learned samples with the smallest keyed hash: a uniform sample of each class.

        Byte-identical samples count once; contents whose digest is in `exclude` are left out. Classes with few
        samples leave their share of `capacity` to the others.
        """
        ranked: dict[int, list[tuple[str, str, str]]] = {}
        for label_id in self._learned_counts(session, model):
            query = (
                select(func.min(Sample.id), Sample.memory_rank, Sample.content_digest)
                .where(*_learned(model), Sample.label_id == label_id)
                .group_by(Sample.memory_rank, Sample.content_digest)
                .order_by(Sample.memory_rank)
                .limit(capacity + len(exclude))
            )
            rows = session.execute(query)
            ranked[label_id] = [row for row in rows if row[2] not in exclude]
        shares = fair_shares({label_id: len(rows) for label_id, rows in ranked.items()}, capacity)
        chosen = {
            sample_id: (label_id, digest)
            for label_id, rows in ranked.items()
            for sample_id, _, digest in rows[: shares[label_id]]
        }
        return [Stored(sample_id, *about) for sample_id, about in chosen.items()]

    @reads
    def uniform_memory(
        self, session: Session, model: Model, capacity: int, exclude: Collection[str] = frozenset()
    ) -> list[Stored]:
        """The learned samples with the smallest keyed hash of all: a uniform sample of what was learned."""
        query = (
            select(func.min(Sample.id), Sample.label_id, Sample.content_digest)
            .where(*_learned(model))
            .group_by(Sample.memory_rank, Sample.label_id, Sample.content_digest)
            .order_by(Sample.memory_rank)
            .limit(capacity + len(exclude))
        )
        rows = session.execute(query).all()
        return [Stored(*row) for row in rows if row[2] not in exclude][:capacity]

    @reads
    def learned(self, session: Session, model: Model) -> list[Stored]:
        """Every sample that live was taught, in the order of arrival, byte-identical ones too.

        Each with the label that the line's ledger has for it: of one whose correction or withdrawal still waits it is
        the older label, because that is what live was made from.
        """
        newest = select(func.max(Revision.number)).where(
            Revision.sample_id == Sample.id, Revision.state == literal(RevisionState.LEARNED)
        )
        query = (
            select(Sample.id, Revision.label_id, Sample.content_digest)
            .join(Revision, Revision.sample_id == Sample.id)
            .where(
                Sample.model_id == model.id,
                Sample.in_line.is_(True),
                Sample.side == literal(LedgerRole.LEARN),
                Revision.number == newest.correlate(Sample).scalar_subquery(),
            )
            .order_by(Sample.id)
        )
        return [Stored(*row) for row in session.execute(query).all()]

    def holdout(self, model: Model, cap: int = HOLDOUT_CAP) -> list[Stored]:
        """The newest `cap` held-out samples of the line; byte-identical ones count once."""
        return self._apart(model, LedgerRole.HOLDOUT, cap)

    def test_split(self, model: Model, cap: int = HOLDOUT_CAP) -> list[Stored]:
        """The newest `cap` samples of the line that are only reported on; byte-identical ones count once."""
        return self._apart(model, LedgerRole.TEST, cap)

    @reads
    def _apart(self, session: Session, model: Model, side: LedgerRole, cap: int) -> list[Stored]:
        query = (
            select(func.max(Sample.id), Sample.content_digest)
            .where(
                Sample.model_id == model.id,
                Sample.in_line,
                Sample.state == SampleState.HELD_OUT,
                Sample.side == literal(side),
            )
            .group_by(Sample.content_digest)
            .order_by(func.max(Sample.id).desc())
            .limit(cap)
        )
        digests = dict(session.execute(query).all())
        chosen = {}
        for ids in chunks(digests):
            rows = session.execute(select(Sample.id, Sample.label_id).where(Sample.id.in_(ids)))
            chosen.update({sample_id: (label_id, digests[sample_id]) for sample_id, label_id in rows})
        return [Stored(sample_id, *about) for sample_id, about in chosen.items()]

    @reads
    def contents(self, session: Session, sample_ids: Collection[str]) -> dict[str, bytes]:
        """The inputs' bytes by sample id; one withdrawn meanwhile is missing. Ask for as many as memory may hold."""
        found: dict[str, bytes] = {}
        for ids in chunks(sample_ids):
            rows = session.execute(select(Payload.sample_id, Payload.content).where(Payload.sample_id.in_(ids)))
            found.update(dict(rows.all()))
        return found

    @reads
    def learned_counts(self, session: Session, model: Model) -> dict[int, int]:
        """How many samples of each label id the line has learned."""
        return self._learned_counts(session, model)

    @reads
    def scores(self, session: Session, version_id: str, sample_ids: Iterable[str]) -> dict[str, int | None]:
        """What the version said of these held-out samples, as far as it was asked: predicted label ids."""
        found: dict[str, int | None] = {}
        for ids in chunks(sample_ids):
            query: Select[str, int | None] = select(HoldoutScore.sample_id, HoldoutScore.label_id).where(
                HoldoutScore.version_id == version_id, HoldoutScore.sample_id.in_(ids)
            )
            found.update(dict(session.execute(query).all()))
        return found

    @reads
    def logits(
        self, session: Session, sample_ids: Collection[str], line: Collection[str]
    ) -> dict[str, tuple[list[int], bytes]]:
        """What versions of the `line` said of samples when they had just learned them: label ids and logits."""
        ancestors = set(line)
        found: dict[str, tuple[list[int], bytes]] = {}
        for ids in chunks(sample_ids):
            for row in session.scalars(select(Logits).where(Logits.sample_id.in_(ids))):
                if row.version_id in ancestors:
                    found[row.sample_id] = (list(row.labels), row.values)
        return found

    def _learned_counts(self, session: Session, model: Model) -> dict[int, int]:
        query = select(Sample.label_id, func.count()).where(*_learned(model)).group_by(Sample.label_id)
        return dict(session.execute(query).all())


def fair_shares(available: dict[int, int], capacity: int) -> dict[int, int]:
    """Split `capacity` evenly over classes, none getting more than it has; leftovers go to the larger ones."""
    shares: dict[int, int] = {}
    left = capacity
    for position, (label_id, count) in enumerate(sorted(available.items(), key=lambda item: (item[1], item[0]))):
        shares[label_id] = min(count, left // (len(available) - position))
        left -= shares[label_id]
    return shares


def _learned(model: Model) -> tuple[ColumnElement[bool], ...]:
    return (Sample.model_id == model.id, Sample.in_line.is_(True), Sample.state == SampleState.LEARNED)


Remember = Callable[[LineReader, Model, int, Collection[str]], list[Stored]]

MEMORIES: Mapping[str, Remember] = MappingProxyType(
    {
        "class_balanced": lambda line, model, capacity, exclude: line.memory(model, capacity, exclude),
        "uniform": lambda line, model, capacity, exclude: line.uniform_memory(model, capacity, exclude),
    }
)
"""The catalog of memories: which learned samples are rehearsed, given a capacity and contents to leave out."""
