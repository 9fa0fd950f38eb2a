"""What a key uses is counted in the database: right however many requests come at once, in every replica."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from app.auth import keys
from app.auth.quotas import Usage, charge
from app.auth.scopes import Scope
from app.db.clock import db_now
from app.db.models import KeyUsageRow

Sessions = sessionmaker[Session]


def a_key(sessions: Sessions) -> str:
    with sessions.begin() as session:
        return keys.create(session, "ci", Scope.SUBMIT)[0].id


def use(sessions: Sessions, key: str, amount: int, limit: int | None, kind: Usage = Usage.REQUESTS) -> int | None:
    with sessions.begin() as session:
        return charge(session, key, kind, amount, limit)


def test_of_fifty_requests_at_once_exactly_as_many_pass_as_the_limit_says(sessions: Sessions) -> None:
    key = a_key(sessions)
    with ThreadPoolExecutor(10) as pool:
        waits = list(pool.map(lambda _: use(sessions, key, 1, 20), range(50)))
    assert waits.count(None) == 20
    assert all(1 <= wait <= 60 for wait in waits if wait is not None)


def test_what_is_refused_is_not_counted(sessions: Sessions) -> None:
    key = a_key(sessions)
    assert use(sessions, key, 60, 100, Usage.BYTES) is None
    assert use(sessions, key, 60, 100, Usage.BYTES) is not None
    assert use(sessions, key, 40, 100, Usage.BYTES) is None
    assert use(sessions, key, 101, 100, Usage.BYTES) == 86400, "would never fit"


def test_a_window_that_is_over_starts_anew(sessions: Sessions) -> None:
    key = a_key(sessions)
    assert use(sessions, key, 5, 5) is None
    assert use(sessions, key, 1, 5) is not None
    with sessions.begin() as session:
        session.execute(update(KeyUsageRow).values(window_start=db_now(-61)))
    assert use(sessions, key, 5, 5) is None
    assert use(sessions, key, 1, 5) is not None


def test_without_a_limit_everything_is_counted(sessions: Sessions) -> None:
    key = a_key(sessions)
    assert use(sessions, key, 10, None) is None
    assert use(sessions, key, 1, 5) is not None
