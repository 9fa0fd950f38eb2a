"""Announcing jobs to the workers: Celery over Redis, or Celery over the embedded broker (a folder)."""
