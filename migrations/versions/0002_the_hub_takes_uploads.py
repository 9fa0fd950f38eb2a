"""The hub takes uploads: owners, access, tags, proofs of possession

Revision ID: 0002
Revises: 0001
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:

    # Plain ALTER TABLE: a batch would make the table anew on SQLite, and dropping the old one would take, by the
    # foreign keys' cascade, every commit with it.
    op.add_column("repos", sa.Column("owner", sa.String(length=16), nullable=False, server_default=""))
    op.add_column("repos", sa.Column("gated", sa.String(length=8), nullable=True))
    op.add_column(
        "repos", sa.Column("last_modified", sa.DateTime(timezone=True), nullable=False, server_default="1970-01-01")
    )
    op.execute(
        "UPDATE repos SET last_modified = COALESCE((SELECT commits.created_at FROM refs JOIN commits "
        "ON commits.id = refs.commit_id WHERE refs.repo_id = repos.id AND refs.kind = 'branch' "
        "AND refs.name = 'main'), created_at)"
    )
    op.create_index("ix_repos_created_at", "repos", ["created_at"])
    op.create_index("ix_repos_last_modified", "repos", ["last_modified"])
    op.add_column("commits", sa.Column("author", sa.String(length=64), nullable=False, server_default=""))

    op.create_table(
        "repo_grants",
        sa.Column("repo_id", _ID, nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("repo_id", "key_id"),
    )
    op.create_table(
        "repo_tags",
        sa.Column("repo_id", _ID, nullable=False),
        sa.Column("tag", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("repo_id", "tag"),
    )
    op.create_index("repo_tags_by_tag", "repo_tags", ["tag", "repo_id"])
    op.create_table(
        "uploads",
        sa.Column("repo_id", _ID, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("git_oid", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("repo_id", "sha256"),
    )
    op.create_index("ix_uploads_created_at", "uploads", ["created_at"])


def downgrade() -> None:

    op.drop_table("uploads")
    op.drop_table("repo_tags")
    op.drop_table("repo_grants")
    op.execute("ALTER TABLE commits DROP COLUMN author")
    op.drop_index("ix_repos_last_modified", "repos")
    op.drop_index("ix_repos_created_at", "repos")
    for column in ("last_modified", "gated", "owner"):
        op.execute(f"ALTER TABLE repos DROP COLUMN {column}")
