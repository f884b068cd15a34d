"""The tables, as the entities they are; stores hand them out detached.

Called by the stores of this folder only. Times are milliseconds since 1970 by the database's clock in the
column, aware UTC in Python. Columns that hold a word of `states` are short strings, so that a new one needs no
migration.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite only counts up by itself on a column typed INTEGER.
BigId = BigInteger().with_variant(Integer, "sqlite")


class Moment(TypeDecorator[datetime]):
    """Aware UTC in Python, whole milliseconds since 1970 in the column."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else round(value.timestamp() * 1000)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromtimestamp(value / 1000, UTC)


class Base(DeclarativeBase):
    type_annotation_map = {
        dict[str, Any]: JSON,
        list[Any]: JSON,
        datetime: Moment(),
        bytes: LargeBinary,
        int: BigInteger,
    }


class Family(Base):
    """Models that share one backbone."""

    __tablename__ = "families"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    created_at: Mapped[datetime]


class Model(Base):
    """A named thing that is served and taught. Its row is the lock of its line."""

    __tablename__ = "models"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    input: Mapped[dict[str, Any]]
    network: Mapped[dict[str, Any]]
    recipe: Mapped[dict[str, Any]]
    recipe_number: Mapped[int] = mapped_column(default=1)
    batching: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    holdout_key: Mapped[bytes]  # keys the hash that splits held-out from learned
    pinned: Mapped[bool] = mapped_column(default=False)
    paused: Mapped[bool] = mapped_column(default=False)
    run_requested: Mapped[bool] = mapped_column(default=False)
    slow_requested: Mapped[bool] = mapped_column(default=False, server_default=false())
    family_id: Mapped[int | None] = mapped_column(ForeignKey("families.id", name="fk_models_family"))
    created_at: Mapped[datetime]


class Label(Base):
    """A class of a model. `id` is model-wide and never used again; a network's rows name labels by it."""

    __tablename__ = "labels"
    __table_args__ = (UniqueConstraint("model_id", "name"),)

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]


class Sample(Base):
    """One labelled input as posted, and its receipt."""

    __tablename__ = "samples"
    __table_args__ = (
        UniqueConstraint("model_id", "client_id"),
        Index("ix_samples_content", "model_id", "content_digest"),
        Index("ix_samples_state", "model_id", "state", "id"),
        Index("ix_samples_line", "model_id", "in_line", "state", "label_id", "memory_rank"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    client_id: Mapped[str | None] = mapped_column(String(200))
    request_digest: Mapped[str] = mapped_column(String(64))  # of content, label and source: same id, same body?
    content_digest: Mapped[str] = mapped_column(String(64))  # of the payload bytes alone
    nbytes: Mapped[int]
    memory_rank: Mapped[str] = mapped_column(String(32))  # keyed hash of the content: the smallest are rehearsed
    label_id: Mapped[int]
    source: Mapped[str] = mapped_column(String(200))
    why: Mapped[str | None] = mapped_column(String(16))
    prediction_id: Mapped[str | None] = mapped_column(String(36))
    state: Mapped[str] = mapped_column(String(16))
    side: Mapped[str | None] = mapped_column(
        String(8)
    )  # a ledger role, once it was split (`test` may be asked for); a content never changes sides
    in_line: Mapped[bool] = mapped_column(default=False)  # learned or held out by the live version or an ancestor
    version_id: Mapped[str | None] = mapped_column(ForeignKey("versions.id"))  # learned or held out in
    reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Payload(Base):
    """A sample's input, apart, so that a change of state never rewrites the picture."""

    __tablename__ = "payloads"

    sample_id: Mapped[str] = mapped_column(ForeignKey("samples.id", ondelete="CASCADE"), primary_key=True)
    content: Mapped[bytes]


class Revision(Base):
    """One label revision: what the queue holds and the ledger consumes once."""

    __tablename__ = "revisions"
    __table_args__ = (
        UniqueConstraint("sample_id", "number"),
        CheckConstraint("(state = 'claimed') = (update_id IS NOT NULL)", name="claimed_by_an_update"),
        Index(
            "ix_revisions_ready",
            "model_id",
            "attempts",
            "id",
            sqlite_where=text("state = 'queued'"),
            postgresql_where=text("state = 'queued'"),
        ),
        Index(
            "ix_revisions_claimed",
            "update_id",
            sqlite_where=text("state = 'claimed'"),
            postgresql_where=text("state = 'claimed'"),
        ),
        Index(
            "ix_revisions_waiting",
            "model_id",
            "label_id",
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    sample_id: Mapped[str] = mapped_column(ForeignKey("samples.id"))
    number: Mapped[int]  # 1, 2, … within the sample
    action: Mapped[str] = mapped_column(String(8))
    label_id: Mapped[int]
    actor: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(16))
    update_id: Mapped[int | None] = mapped_column(ForeignKey("updates.id"))
    attempts: Mapped[int] = mapped_column(default=0)  # crashes of updates that held it
    refusals: Mapped[int] = mapped_column(default=0)  # rejections of batches that held it
    judgements: Mapped[int] = mapped_column(default=0)  # inconclusive verdicts on batches that held it
    not_before: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]


class Update(Base):
    """One claim → learn → judge → publish. Its id is the fencing token."""

    __tablename__ = "updates"
    __table_args__ = (
        Index(
            "uq_updates_one_running",
            "model_id",
            "lane",
            unique=True,
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index("ix_updates_model", "model_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    kind: Mapped[str] = mapped_column(String(16))
    lane: Mapped[str] = mapped_column(String(8))
    state: Mapped[str] = mapped_column(String(16))
    worker: Mapped[str] = mapped_column(String(36))
    parent_id: Mapped[str] = mapped_column(String(36))  # a version; the key the other way round makes the cycle whole
    epoch: Mapped[int]  # of the line when the update began
    revisions: Mapped[int]  # how many it claimed
    lease_until: Mapped[datetime]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)


class Version(Base):
    """Immutable: what an update made, and how it was judged."""

    __tablename__ = "versions"
    __table_args__ = (
        UniqueConstraint("model_id", "number"),
        Index("ix_versions_files", "files", "model_id"),  # few have files, however many there are
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    number: Mapped[int]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("versions.id"))
    base_id: Mapped[str | None] = mapped_column(ForeignKey("versions.id"))  # a delta's full version
    update_id: Mapped[int | None] = mapped_column(ForeignKey("updates.id"), unique=True)  # one version per update, ever
    spec: Mapped[dict[str, Any]]
    recipe: Mapped[dict[str, Any]]
    recipe_number: Mapped[int]
    verdict: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    metrics: Mapped[dict[str, Any]]
    files: Mapped[str] = mapped_column(String(16))
    kept: Mapped[bool] = mapped_column(default=False)  # by hand, against retention
    created_at: Mapped[datetime]


class Artifact(Base):
    """A file of a version; its path follows from the version's id and the kind."""

    __tablename__ = "artifacts"

    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    nbytes: Mapped[int]


class LedgerEntry(Base):
    """A revision is in a version: append only, once per version."""

    __tablename__ = "ledger"
    __table_args__ = (Index("ix_ledger_revision", "revision_id"),)

    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("revisions.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(8))


class Promotion(Base):
    """One move of the pointer. Append only; live is the last row of the model."""

    __tablename__ = "promotions"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"))
    falls_back_to: Mapped[str | None] = mapped_column(ForeignKey("versions.id"))
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]


class Assignment(Base):
    """Which versions servers should hold, by role; `live` follows the last promotion in the same transaction."""

    __tablename__ = "assignments"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(8), primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"))
    share: Mapped[float] = mapped_column(default=1.0)
    epoch: Mapped[int]


class PredictionPack(Base):
    """Some predictions made within seconds of each other, with their inputs, as one row (docs/decisions/0031)."""

    __tablename__ = "prediction_packs"

    last_id: Mapped[str] = mapped_column(String(36), primary_key=True)  # the greatest of their ids, so the youngest
    first_id: Mapped[str] = mapped_column(String(36))
    predictions: Mapped[int]  # how many
    nbytes: Mapped[int]
    entries: Mapped[str] = mapped_column(Text)  # JSON, what was answered and how long each input is
    inputs: Mapped[bytes]  # end to end, in the entries' order


class Server(Base):
    """A serving process and when it last showed itself."""

    __tablename__ = "servers"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class Serving(Base):
    """What a server serves of a model, at which epoch of the line, and what ails it."""

    __tablename__ = "serving"

    server_id: Mapped[str] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    version_id: Mapped[str | None] = mapped_column(ForeignKey("versions.id"))
    epoch: Mapped[int]
    warm: Mapped[list[Any]]  # ids of the versions kept loaded
    error: Mapped[str | None] = mapped_column(Text)
    loaded_at: Mapped[datetime]


class Key(Base):
    """An API key: only its digest is kept."""

    __tablename__ = "keys"
    __table_args__ = {"sqlite_autoincrement": True}

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    scope: Mapped[str] = mapped_column(String(8))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Event(Base):
    """One row of the audit log."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_model", "model_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    model_id: Mapped[int | None] = mapped_column(ForeignKey("models.id"))
    kind: Mapped[str] = mapped_column(String(32))
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]]
    at: Mapped[datetime]


class HoldoutScore(Base):
    """What a version says of a held-out sample: kept, so that no version is asked the same twice."""

    __tablename__ = "holdout_scores"

    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    sample_id: Mapped[str] = mapped_column(ForeignKey("samples.id", ondelete="CASCADE"), primary_key=True)
    label_id: Mapped[int | None]  # predicted; None where the version knows no class


class Features(Base):
    """What a backbone made of a content: kept, so that it is made once. Can always be made again."""

    __tablename__ = "features"

    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    backbone: Mapped[str] = mapped_column(String(64), primary_key=True)  # digest of the backbone that made them
    content_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    values: Mapped[bytes]  # float32, little-endian


class Logits(Base):
    """What a version said of a learned sample when it had just learned it, to be matched while it is rehearsed."""

    __tablename__ = "logits"

    sample_id: Mapped[str] = mapped_column(ForeignKey("samples.id", ondelete="CASCADE"), primary_key=True)
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.id"))
    labels: Mapped[list[Any]]  # label ids in the order of the values
    values: Mapped[bytes]  # float32, little-endian
