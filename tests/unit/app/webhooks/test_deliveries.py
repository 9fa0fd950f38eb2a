"""Of any number of senders one has a message, and a message is lost by none of them, on both databases."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from app.db.clock import db_now
from app.db.models import WebhookDeliveryRow
from app.webhooks import deliveries
from app.webhooks.deliveries import Claim
from tests.unit.app.webhooks.test_outbox import add_job, add_webhook, end

Sessions = sessionmaker[Session]


@pytest.fixture
def message(sessions: Sessions) -> str:
    """Id of a message that waits for endpoint w1."""
    add_webhook(sessions)
    add_job(sessions)
    end(sessions)
    (found,) = due(sessions)
    return found


def due(sessions: Sessions) -> list[str]:
    with sessions() as session:
        return list(deliveries.due(session, limit=10))


def claim(sessions: Sessions, message: str, lease_seconds: float = 60) -> Claim | None:
    with sessions.begin() as session:
        return deliveries.claim(session, message, lease_seconds=lease_seconds)


def taken(sessions: Sessions, message: str, lease_seconds: float = 60) -> Claim:
    found = claim(sessions, message, lease_seconds)
    assert found is not None
    return found


def row(sessions: Sessions, message: str) -> WebhookDeliveryRow:
    with sessions() as session:
        found = session.get(WebhookDeliveryRow, message)
        assert found is not None
        return found


def fail(sessions: Sessions, claimed: Claim, delay: float | None = 60) -> None:
    with sessions.begin() as session:
        deliveries.failed(session, claimed, error="The receiver answered 500.", status=500, delay=delay)


def test_of_twenty_senders_that_claim_one_message_at_the_same_time_exactly_one_gets_it(
    sessions: Sessions, message: str
) -> None:
    barrier = threading.Barrier(20)

    def try_to_claim(_sender: int) -> bool:
        barrier.wait()
        return claim(sessions, message) is not None

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(try_to_claim, range(20))) == 1
    assert row(sessions, message).attempts == 1


def test_the_moment_of_an_attempt_is_the_databases(sessions: Sessions, message: str) -> None:
    began = taken(sessions, message).began
    assert abs(began - datetime.now(UTC)) < timedelta(minutes=1), "this machine's clock is right"
    assert row(sessions, message).last_attempt_at == began


def test_a_message_whose_sender_died_is_another_ones_after_its_lease(sessions: Sessions, message: str) -> None:
    taken(sessions, message, lease_seconds=60)
    assert due(sessions) == []
    with sessions.begin() as session:
        session.execute(update(WebhookDeliveryRow).values(lease_expires_at=db_now(-1)))
    assert due(sessions) == [message]
    assert taken(sessions, message).attempt == 2


def test_the_outcome_of_an_attempt_that_is_not_the_last_changes_nothing(sessions: Sessions, message: str) -> None:
    old = taken(sessions, message, lease_seconds=-1)
    new = taken(sessions, message)
    fail(sessions, old, None)
    assert row(sessions, message).state == deliveries.PENDING
    with sessions.begin() as session:
        deliveries.delivered(session, new, 204)
    fail(sessions, new)
    with sessions.begin() as session:
        deliveries.delivered(session, old, 200)
    found = row(sessions, message)
    assert (found.state, found.status_code, found.error, found.next_attempt_at) == ("delivered", 204, None, None)


def test_an_endpoint_has_one_message_at_a_time_and_others_are_not_held_up(sessions: Sessions, message: str) -> None:
    add_job(sessions, "j2")
    end(sessions, job_id="j2")
    (second,) = set(due(sessions)) - {message}
    add_job(sessions, "j3", owner="somebody")
    add_webhook(sessions, "w3", job_id="j3")
    end(sessions, job_id="j3")
    (third,) = set(due(sessions)) - {message, second}
    first = taken(sessions, message)
    assert due(sessions) == [third]
    assert claim(sessions, second) is None
    fail(sessions, first)
    assert due(sessions) == [second, third]


def test_a_message_that_failed_waits_and_one_that_is_given_up_does_not_come_again(
    sessions: Sessions, message: str
) -> None:
    fail(sessions, taken(sessions, message))
    waiting = row(sessions, message)
    assert (waiting.state, waiting.failures, waiting.status_code) == ("pending", 1, 500)
    assert waiting.next_attempt_at is not None
    assert waiting.last_attempt_at is not None
    assert 59 < (waiting.next_attempt_at - waiting.last_attempt_at).total_seconds() < 600
    assert due(sessions) == []
    with sessions.begin() as session:
        session.execute(update(WebhookDeliveryRow).values(next_attempt_at=db_now(-1)))
    fail(sessions, taken(sessions, message), None)
    given_up = row(sessions, message)
    assert (given_up.state, given_up.failures, given_up.next_attempt_at) == ("failed", 2, None)
    assert due(sessions) == []


@pytest.mark.parametrize("before", ["delivered", "failed", "pending"])
def test_asked_for_again_a_message_is_sent_now_with_all_its_attempts(
    sessions: Sessions, message: str, before: str
) -> None:
    claimed = taken(sessions, message)
    if before == "delivered":
        with sessions.begin() as session:
            deliveries.delivered(session, claimed, 200)
    else:
        fail(sessions, claimed, None if before == "failed" else 3600)
    with sessions.begin() as session:
        assert deliveries.send_again(session, "w1", message)
        assert not deliveries.send_again(session, "w2", message), "that endpoint has no such message"
    assert due(sessions) == [message]
    again = taken(sessions, message)
    assert (again.attempt, again.failures, again.payload) == (2, 0, claimed.payload)


def test_asked_for_again_during_an_attempt_a_message_is_not_sent_by_two(sessions: Sessions, message: str) -> None:
    under_way = taken(sessions, message)
    with sessions.begin() as session:
        deliveries.send_again(session, "w1", message)
    assert due(sessions) == []
    assert claim(sessions, message) is None
    with sessions.begin() as session:
        deliveries.delivered(session, under_way, 200)
    assert row(sessions, message).state == deliveries.DELIVERED


def test_asked_for_again_during_the_last_attempt_a_message_still_gets_all_its_attempts(
    sessions: Sessions, message: str
) -> None:
    fail(sessions, taken(sessions, message), 0)
    last = taken(sessions, message)
    with sessions.begin() as session:
        deliveries.send_again(session, "w1", message)
    fail(sessions, last, None)
    again = row(sessions, message)
    assert (again.state, again.failures) == (deliveries.PENDING, 0)
    assert due(sessions) == [message]


def test_a_reason_longer_than_its_column_is_cut(sessions: Sessions, message: str) -> None:
    with sessions.begin() as session:
        deliveries.failed(session, taken(sessions, message), error="x" * 1000, status=None, delay=None)
    assert row(sessions, message).error == "x" * 300


def test_an_endpoint_that_is_gone_is_sent_nothing_of_what_waits(sessions: Sessions, message: str) -> None:
    with sessions.begin() as session:
        deliveries.give_up(session, "w1", error="The receiver answered 410 to another message.")
        assert deliveries.waiting(session) == 0
    assert due(sessions) == []
    assert row(sessions, message).state == deliveries.FAILED
