"""Webhooks: what has happened to jobs is told to addresses that clients have registered, signed and at least once."""
