"""features, logits, families, slow updates"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "families",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "features",
        sa.Column("model_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("backbone", sa.String(length=64), nullable=False),
        sa.Column("content_digest", sa.String(length=64), nullable=False),
        sa.Column("values", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"]),
        sa.PrimaryKeyConstraint("model_id", "backbone", "content_digest"),
    )
    op.create_table(
        "logits",
        sa.Column("sample_id", sa.String(length=36), nullable=False),
        sa.Column("version_id", sa.String(length=36), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("values", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"]),
        sa.PrimaryKeyConstraint("sample_id"),
    )
    op.add_column("models", sa.Column("slow_requested", sa.Boolean(), server_default=sa.false(), nullable=False))
    # In words, since SQLite takes a new foreign key only within its column.
    kind = "BIGINT" if op.get_bind().dialect.name == "postgresql" else "INTEGER"
    op.execute(f"ALTER TABLE models ADD COLUMN family_id {kind} CONSTRAINT fk_models_family REFERENCES families (id)")
    op.create_index("ix_versions_files", "versions", ["files", "model_id"])


def downgrade() -> None:
    op.drop_index("ix_versions_files", "versions")
    with op.batch_alter_table("models", table_kwargs={"sqlite_autoincrement": True}) as models:
        models.drop_column("family_id")
        models.drop_column("slow_requested")
    op.drop_table("logits")
    op.drop_table("features")
    op.drop_table("families")
