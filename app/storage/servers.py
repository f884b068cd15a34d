"""Which serving processes there are, and what each serves: how a rollback knows that everyone has followed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.orm import Session
from uuid_utils import uuid7

from app.storage.database import Database, DatabaseNow, now, puts, reads, writes
from app.storage.kept_connection import Cursor
from app.storage.leases import rows_changed
from app.storage.tables import Server, Serving

FORGET = timedelta(hours=1)  # rows of servers that went without a word

_BEAT = update(Server).where(Server.id == bindparam("server_id")).values(seen_at=DatabaseNow())


@dataclass(frozen=True)
class ServingReport:
    """What a server says it serves of a model; `warm` are ids of versions it keeps loaded."""

    model_id: int
    version_id: str | None
    epoch: int
    warm: tuple[str, ...] = field(default=())
    error: str | None = None


@dataclass(frozen=True)
class ServingState:
    """What a fresh server serves of one model."""

    server_id: str
    host: str
    pid: int
    version_id: str | None
    epoch: int
    error: str | None


class ServerRoster:
    """Servers report here at every poll."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @writes
    def arrive(self, session: Session, host: str, pid: int) -> str:
        """Enter a serving process; its id, new for every start, is the answer."""
        at = now(session)
        session.execute(delete(Server).where(Server.seen_at < at - FORGET))
        server = Server(id=str(uuid7()), host=host, pid=pid, started_at=at, seen_at=at)
        session.add(server)
        return server.id

    @puts
    def beat(self, cursor: Cursor, server_id: str) -> bool:
        """Say that the server lives; False when it was forgotten."""
        return cursor.put(_BEAT, server_id=server_id) > 0

    @writes
    def report(self, session: Session, server_id: str, serving: Sequence[ServingReport]) -> bool:
        """Say that the server lives and what it serves; False when it was forgotten."""
        if rows_changed(session.execute(_BEAT, {"server_id": server_id})) == 0:
            return False
        at = now(session)
        for report in serving:
            session.merge(
                Serving(
                    server_id=server_id,
                    model_id=report.model_id,
                    version_id=report.version_id,
                    epoch=report.epoch,
                    warm=list(report.warm),
                    error=report.error,
                    loaded_at=at,
                )
            )
        return True

    @writes
    def leave(self, session: Session, server_id: str) -> None:
        """The server stops: nobody waits for it any more."""
        session.execute(delete(Serving).where(Serving.server_id == server_id))
        session.execute(delete(Server).where(Server.id == server_id))

    @reads
    def fresh(self, session: Session, model_id: int, seconds: float = 5) -> list[ServingState]:
        """Servers seen within `seconds`, with what each serves of the model."""
        since = now(session) - timedelta(seconds=seconds)
        rows = session.execute(
            select(Server, Serving)
            .outerjoin(Serving, (Serving.server_id == Server.id) & (Serving.model_id == model_id))
            .where(Server.seen_at >= since)
            .order_by(Server.id)
        )
        return [
            ServingState(
                server.id,
                server.host,
                server.pid,
                serving.version_id if serving else None,
                serving.epoch if serving else 0,
                serving.error if serving else None,
            )
            for server, serving in rows
        ]
