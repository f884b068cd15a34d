"""predictions and their inputs in packs"""

import json
from collections.abc import Iterator
from itertools import accumulate, groupby

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PACK = 64
ROW_BYTES = 400
SPAN_MS = 10_000

KEPT = sa.text("""
    SELECT p.id, p.model_id, p.version, p.label, p.score, p.top, p.created_at, i.content
    FROM predictions p JOIN prediction_inputs i ON i.prediction_id = p.id
    WHERE p.id > :after ORDER BY p.id LIMIT :most
""").columns(top=sa.JSON)
PUT = sa.text("""
    INSERT INTO prediction_packs (last_id, first_id, predictions, nbytes, entries, inputs)
    VALUES (:last_id, :first_id, :predictions, :nbytes, :entries, :inputs)
""")


def upgrade() -> None:
    op.create_table(
        "prediction_packs",
        sa.Column("last_id", sa.String(length=36), nullable=False),
        sa.Column("first_id", sa.String(length=36), nullable=False),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.Column("nbytes", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.Text(), nullable=False),
        sa.Column("inputs", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("last_id"),
    )
    connection = op.get_bind()
    for row in packed(connection):
        connection.execute(PUT, row)
    op.drop_table("prediction_inputs")
    op.drop_table("predictions")


def packed(connection: sa.Connection) -> Iterator[dict[str, object]]:
    """What is kept, in the form that this revision's release writes."""
    after = ""
    while rows := connection.execute(KEPT, {"after": after, "most": PACK}).all():
        after = rows[-1].id
        for _, near in groupby(rows, key=lambda row: int(row.id.replace("-", "")[:12], 16) // SPAN_MS):
            pack = list(near)
            entries = [
                [
                    *(row.id, row.model_id, row.version, row.label, row.score),
                    [[one["label"], one["score"]] for one in row.top],
                    *(row.created_at, len(row.content)),
                ]
                for row in pack
            ]
            yield {
                "last_id": pack[-1].id,
                "first_id": pack[0].id,
                "predictions": len(pack),
                "nbytes": sum(len(row.content) + ROW_BYTES for row in pack),
                "entries": json.dumps(entries),
                "inputs": b"".join(row.content for row in pack),
            }


def downgrade() -> None:
    op.create_table(
        "predictions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.Text()),
        sa.Column("score", sa.Double()),
        sa.Column("top", sa.JSON(), nullable=False),
        sa.Column("nbytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_predictions_created", "predictions", ["created_at"])
    op.create_table(
        "prediction_inputs",
        sa.Column("prediction_id", sa.String(length=36), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["prediction_id"], ["predictions.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("prediction_id"),
    )
    unpack()
    op.drop_table("prediction_packs")


def unpack() -> None:
    """Give every prediction its rows back."""
    connection = op.get_bind()
    names = ("id", "model_id", "version", "label", "score", "top", "created_at", "nbytes")
    predictions = sa.table("predictions", *(sa.column(name, sa.JSON if name == "top" else None) for name in names))
    inputs = sa.table("prediction_inputs", sa.column("prediction_id"), sa.column("content"))
    after = ""
    look = sa.text(
        "SELECT last_id, entries, inputs FROM prediction_packs WHERE last_id > :after ORDER BY last_id LIMIT 1"
    )
    while (pack := connection.execute(look, {"after": after}).first()) is not None:
        after = pack.last_id
        entries = [dict(zip(names, entry, strict=True)) for entry in json.loads(pack.entries)]
        starts = accumulate((entry["nbytes"] for entry in entries), initial=0)
        content = bytes(pack.inputs)
        parts = [
            {"prediction_id": entry["id"], "content": content[at : at + entry["nbytes"]]}
            for entry, at in zip(entries, starts, strict=False)
        ]
        for entry in entries:
            entry["top"] = [{"label": label, "score": score} for label, score in entry["top"]]
            entry["nbytes"] += ROW_BYTES
        connection.execute(predictions.insert(), entries)
        connection.execute(inputs.insert(), parts)
