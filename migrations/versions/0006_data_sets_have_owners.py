"""Data sets have owners

Revision ID: 0006
Revises: 0005
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:

    # Who uploaded the older ones is not known: like those of a service without keys they are the operator's.
    # Plain ALTER TABLE, see 0002.
    op.add_column("datasets", sa.Column("owner", sa.String(length=16), nullable=False, server_default=""))


def downgrade() -> None:

    op.execute("ALTER TABLE datasets DROP COLUMN owner")
