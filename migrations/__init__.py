"""Alembic migrations, which run on Postgres and on SQLite."""
