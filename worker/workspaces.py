"""Workspaces: where a job's stages lie until it has succeeded, so that an interrupted or retried job goes on there."""

import shutil
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from app.jobs import repository
from app.jobs.states import State


def remove_scratch(workspace: Path) -> None:
    """Remove what one stage of the engine keeps for itself alone (`StageContext.scratch`)."""
    shutil.rmtree(workspace / "tmp", ignore_errors=True)


def remove_finished(work_dir: Path, sessions: sessionmaker[Session]) -> list[str]:
    """Remove the workspaces of jobs that have succeeded (their worker died before it could); returns the jobs' ids.

    Those of failed and cancelled jobs stay: a retry goes on from them.
    """
    if not work_dir.is_dir():
        return []
    removed = []
    for workspace in work_dir.iterdir():
        with sessions() as session:
            job = repository.get(session, workspace.name)
        if job is not None and job.state == State.SUCCEEDED:
            shutil.rmtree(workspace, ignore_errors=True)
            removed.append(workspace.name)
    return removed
