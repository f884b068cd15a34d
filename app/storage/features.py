"""Features of a model's samples, by content and by the backbone that made them: made once, read often.

Called by the worker. A cache: what is missing is made again from the payload. Knows bytes, no tensors.
"""

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from app.storage.database import Database, reads, writes
from app.storage.promotions import chunks
from app.storage.tables import Features, Sample


class FeatureStore:
    """Reads and writes cached features. Two backbones' features never meet: every call names one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @reads
    def read(self, session: Session, model_id: int, backbone: str, digests: Collection[str]) -> dict[str, bytes]:
        """Features by content digest, as far as they are kept: float32, little-endian."""
        found: dict[str, bytes] = {}
        for some in chunks(digests):
            query = select(Features.content_digest, Features.values).where(
                Features.model_id == model_id, Features.backbone == backbone, Features.content_digest.in_(some)
            )
            found.update(dict(session.execute(query).all()))
        return found

    @writes
    def write(self, session: Session, model_id: int, backbone: str, values: Mapping[str, bytes]) -> None:
        """Keep features by content digest; what is kept already stays."""
        for some in chunks(values):
            there = set(
                session.scalars(
                    select(Features.content_digest).where(
                        Features.model_id == model_id, Features.backbone == backbone, Features.content_digest.in_(some)
                    )
                )
            )
            rows = [
                {"model_id": model_id, "backbone": backbone, "content_digest": digest, "values": values[digest]}
                for digest in some
                if digest not in there
            ]
            if rows:
                session.execute(insert(Features), rows)

    @writes
    def keep_only(self, session: Session, model_id: int, backbones: Collection[str]) -> None:
        """Let the features of every other backbone go."""
        session.execute(
            delete(Features).where(Features.model_id == model_id, Features.backbone.not_in(list(backbones)))
        )


def forget(session: Session, sample_ids: Iterable[str]) -> None:
    """Delete what backbones made of these samples' contents; a step inside the transaction that erases payloads."""
    for ids in chunks(sample_ids):
        theirs = select(Sample.model_id, Sample.content_digest).where(Sample.id.in_(ids))
        for model_id, digest in session.execute(theirs).all():
            session.execute(delete(Features).where(Features.model_id == model_id, Features.content_digest == digest))
