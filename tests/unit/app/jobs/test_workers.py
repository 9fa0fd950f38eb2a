"""Workers are told by their memory, for as long as they are seen."""

from datetime import timedelta

from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from app.db.clock import db_now
from app.db.models import WorkerRow
from app.jobs import workers
from app.jobs.workers import Workers

Sessions = sessionmaker[Session]


def test_workers_are_counted_by_memory_until_they_leave_or_fall_silent(sessions: Sessions) -> None:
    with sessions.begin() as session:
        for name, memory in (("a", 24), ("b", 80), ("c", 24), ("d", None), ("e", 24)):
            workers.seen(session, name, memory)
    for _ in range(2):  # saying it again makes no second one
        with sessions.begin() as session:
            workers.seen(session, "a", 24)
    with sessions.begin() as session:
        workers.gone(session, "c")
        session.execute(update(WorkerRow).where(WorkerRow.name == "e").values(seen_at=db_now(-61)))
        assert workers.there(session) == [Workers(None, 1), Workers(80, 1), Workers(24, 1)]
        known = {each.memory_bytes: each for each in workers.known(session)}
        assert {memory: each.there for memory, each in known.items()} == {None: 1, 80: 1, 24: 1}
        assert known[24].seen_at > known[80].seen_at - timedelta(seconds=60), "of those of 24, when the last was seen"
        session.execute(update(WorkerRow).where(WorkerRow.memory_bytes == 24).values(seen_at=db_now(-61)))
        silent = {each.memory_bytes: each for each in workers.known(session)}[24]
        assert (silent.there, silent.seen_at < known[24].seen_at) == (0, True), "who has gone silent is known for a day"
    with sessions.begin() as session:
        session.execute(update(WorkerRow).where(WorkerRow.name == "e").values(seen_at=db_now(-90_000)))
        workers.seen(session, "new", 8)
    with sessions() as session:
        assert session.get(WorkerRow, "e") is None, "rows of what was killed do not pile up"
