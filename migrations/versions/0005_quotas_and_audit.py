"""Keys have quotas, changes are audited, and a job knows its request

Revision ID: 0005
Revises: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:

    # Plain ALTER TABLE, see 0002.
    op.add_column("jobs", sa.Column("request_id", sa.String(length=64), nullable=False, server_default=""))
    op.add_column("api_keys", sa.Column("max_queued_jobs", sa.Integer(), nullable=True))
    op.add_column("api_keys", sa.Column("max_requests_per_minute", sa.Integer(), nullable=True))
    op.add_column("api_keys", sa.Column("max_bytes_per_day", sa.BigInteger(), nullable=True))
    op.create_table(
        "key_usage",
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("window_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key_id", "kind"),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("key_name", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("target", sa.String(length=500), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_audit_log_time", "audit_log", ["time"])
    op.create_index("ix_audit_log_key_id", "audit_log", ["key_id"])


def downgrade() -> None:

    op.drop_table("audit_log")
    op.drop_table("key_usage")
    for column in ("max_bytes_per_day", "max_requests_per_minute", "max_queued_jobs"):
        op.execute(f"ALTER TABLE api_keys DROP COLUMN {column}")
    op.execute("ALTER TABLE jobs DROP COLUMN request_id")
