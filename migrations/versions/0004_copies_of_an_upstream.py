"""Copies of an upstream hub, when each file changed last, and which repositories a job names

Revision ID: 0004
Revises: 0003
"""

import json
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:

    op.add_column("repos", sa.Column("upstream", sa.String(length=500), nullable=True))
    op.add_column("commit_files", sa.Column("since", sa.BigInteger(), nullable=True))
    op.create_table(
        "commit_removals",
        sa.Column("commit_id", _ID, nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.ForeignKeyConstraint(["commit_id"], ["commits.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("commit_id", "path"),
    )
    op.create_table(
        "job_repos",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("private", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "name"),
    )
    _compare_commits_with_their_parents()
    _note_repositories_of_jobs()


def _compare_commits_with_their_parents() -> None:
    connection = op.get_bind()
    commits = connection.execute(
        sa.text(
            "SELECT child.id, parent.id FROM commits child LEFT JOIN commits parent "
            "ON parent.repo_id = child.repo_id AND parent.oid = child.parent ORDER BY child.id"
        )
    ).all()
    for commit, parent in commits:  # a parent comes before its children
        ids = {"commit": commit, "parent": parent}
        connection.execute(
            sa.text(
                "UPDATE commit_files SET since = COALESCE((SELECT before.since FROM commit_files before "
                "WHERE before.commit_id = :parent AND before.path = commit_files.path "
                "AND before.sha256 = commit_files.sha256), :commit) WHERE commit_id = :commit"
            ),
            ids,
        )
        connection.execute(
            sa.text(
                "INSERT INTO commit_removals (commit_id, path) SELECT :commit, before.path FROM commit_files before "
                "WHERE before.commit_id = :parent AND NOT EXISTS (SELECT 1 FROM commit_files now "
                "WHERE now.commit_id = :commit AND now.path = before.path)"
            ),
            ids,
        )


def _note_repositories_of_jobs() -> None:
    connection = op.get_bind()
    private = set(connection.scalars(sa.text("SELECT name FROM repos WHERE private")))
    rows = []
    for job_id, spec in connection.execute(sa.text("SELECT id, spec FROM jobs")):
        spec = json.loads(spec) if isinstance(spec, str) else spec
        model = (spec.get("model") or {}).get("repo")
        rivals = [name.partition("@")[0] for name in (spec.get("benchmark") or {}).get("rivals") or ()]
        for name in dict.fromkeys([model, (spec.get("output") or {}).get("repo"), *rivals]):
            if name:
                rows.append({"job_id": job_id, "name": name, "private": name in private or model in private})
    if rows:
        table = sa.table(
            "job_repos", sa.column("job_id", sa.String), sa.column("name", sa.String), sa.column("private", sa.Boolean)
        )
        op.bulk_insert(table, rows)


def downgrade() -> None:

    op.drop_table("job_repos")
    op.drop_table("commit_removals")
    op.drop_column("commit_files", "since")
    op.drop_column("repos", "upstream")
