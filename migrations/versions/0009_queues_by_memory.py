"""Queues by GPU memory: what a job needs, and which workers have been seen

Revision ID: 0009
Revises: 0008
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:

    # Plain ALTER TABLE, see 0002. Null for the jobs that are there: any worker may take them, as it was.
    op.add_column("jobs", sa.Column("required_memory_bytes", sa.BigInteger(), nullable=True))
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def downgrade() -> None:

    op.drop_table("workers")
    op.execute("ALTER TABLE jobs DROP COLUMN required_memory_bytes")
