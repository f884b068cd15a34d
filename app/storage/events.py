"""The audit log: who moved what, when, why. Append only."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.storage.database import Database, reads
from app.storage.tables import Event


class EventLog:
    """Reads the audit log; each store writes its own rows in the transaction they tell of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @reads
    def list(self, session: Session, model_id: int | None, before: int | None, limit: int) -> list[Event]:
        """Newest first, ids below `before`; of one model, or of all."""
        query = select(Event).order_by(Event.id.desc()).limit(limit)
        if model_id is not None:
            query = query.where(Event.model_id == model_id)
        if before is not None:
            query = query.where(Event.id < before)
        return list(session.scalars(query))
