"""how requests are joined, a model each"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("batching", sa.JSON(), server_default="{}", nullable=False))


def downgrade() -> None:
    op.drop_column("models", "batching")
