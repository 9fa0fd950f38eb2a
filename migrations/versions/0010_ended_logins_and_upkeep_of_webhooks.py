"""Logins are ended by logging out; keys note their last use; webhooks fail for a while, and change their secret

Revision ID: 0010
Revises: 0009
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:

    op.create_table(
        "ended_logins",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_index("ix_ended_logins_ended_at", "ended_logins", ["ended_at"])
    # Plain ALTER TABLE, see 0002.
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("webhooks", sa.Column("old_secret", sa.String(length=200), nullable=True))
    op.add_column("webhooks", sa.Column("old_secret_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("webhooks", sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("webhooks", sa.Column("disabled_reason", sa.String(length=8), nullable=True))
    op.execute("UPDATE webhooks SET disabled_reason = 'gone' WHERE disabled_at IS NOT NULL")
    op.create_index("webhook_deliveries_oldest_first", "webhook_deliveries", ["created_at"])


def downgrade() -> None:

    op.drop_index("webhook_deliveries_oldest_first", "webhook_deliveries")
    for column in ("disabled_reason", "failing_since", "old_secret_until", "old_secret"):
        op.execute(f"ALTER TABLE webhooks DROP COLUMN {column}")
    op.execute("ALTER TABLE api_keys DROP COLUMN last_used_at")
    op.drop_table("ended_logins")
