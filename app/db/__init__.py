"""Tables and sessions: Postgres, and SQLite in WAL mode."""
