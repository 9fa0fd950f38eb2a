"""A job keeps what joins the spans of its request, itself and its attempts

Revision ID: 0007
Revises: 0006
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:

    # Plain ALTER TABLE, see 0002.
    op.add_column("jobs", sa.Column("trace", sa.String(length=72), nullable=False, server_default=""))


def downgrade() -> None:

    op.execute("ALTER TABLE jobs DROP COLUMN trace")
