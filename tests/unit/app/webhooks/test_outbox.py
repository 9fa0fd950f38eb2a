"""What is to be told is written with the end of the job, for those who may hear of it, on both databases."""

import json
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, sessionmaker

from app.auth import keys
from app.auth.scopes import Scope
from app.db.clock import db_now
from app.db.models import ApiKeyRow, JobRepoRow, JobRow, RepoGrantRow, RepoRow, WebhookDeliveryRow, WebhookRow
from app.hub.access import Caller
from app.jobs import repository as jobs
from app.jobs.states import State
from app.webhooks import repository

Sessions = sessionmaker[Session]
ENDS = ["succeeded", "failed", "cancelled", "cancelled while queued", "poisoned", "out of attempts", "silent cancelled"]


def add_webhook(sessions: Sessions, webhook_id: str = "w1", **changes: Any) -> None:
    values = {
        "id": webhook_id, "owner": "", "url": "https://example.com/", "secret": "sealed", "jobs": repository.OWN,
        "events": ["job.succeeded", "job.failed", "job.cancelled"], "service_url": "https://streamline.example",
    }  # fmt: skip
    with sessions.begin() as session:
        repository.insert(session, WebhookRow(**(values | changes)))


def add_job(sessions: Sessions, job_id: str = "j1", *, owner: str = "", **more: Any) -> None:
    with sessions.begin() as session:
        row = JobRow(id=job_id, state=State.QUEUED, spec={}, model="a/b", labels={"run": "7"}, owner=owner, **more)
        jobs.insert(session, row)


def end(sessions: Sessions, how: str = "succeeded", job_id: str = "j1") -> None:
    error = {"code": "disk_full", "detail": "No room.", "stage": "train"}
    if how == "cancelled while queued":
        with sessions.begin() as session:
            assert jobs.request_cancel(session, job_id)
        return
    with sessions.begin() as session:
        claim = jobs.claim(session, job_id, owner="w", lease_seconds=60)
    assert claim is not None
    with sessions.begin() as session:
        match how:
            case "succeeded":
                result = {"repo": "a/c", "revision": "0" * 40}
                jobs.succeed(session, job_id, claim.token, verdict="pass", gates=[], result=result)
            case "failed":
                jobs.fail(session, job_id, claim.token, error=error)
            case "cancelled":
                jobs.cancelled(session, job_id, claim.token)
            case "out of attempts":
                assert not jobs.attempt_failed(session, job_id, claim.token, error=error, max_attempts=1)
            case "poisoned":
                jobs.forfeit_leases(session)
                assert jobs.expire_leases(session, max_attempts=1) == [job_id]
            case "silent cancelled":
                assert jobs.request_cancel(session, job_id)
                jobs.forfeit_leases(session)
                assert jobs.expire_leases(session, max_attempts=3) == [job_id]


def told(sessions: Sessions, webhook_id: str = "w1") -> list[WebhookDeliveryRow]:
    with sessions() as session:
        rows = select(WebhookDeliveryRow).where(WebhookDeliveryRow.webhook_id == webhook_id)
        return list(session.scalars(rows.order_by(WebhookDeliveryRow.seq)))


@pytest.mark.parametrize("how", ENDS)
def test_every_way_in_which_a_job_ends_is_told_once(sessions: Sessions, how: str) -> None:
    add_webhook(sessions)
    add_job(sessions)
    end(sessions, how)
    (delivery,) = told(sessions)
    with sessions() as session:
        job = jobs.get(session, "j1")
        assert job is not None
    message = json.loads(delivery.payload)
    assert message["type"] == delivery.event == f"job.{job.state}"
    assert message["data"]["state"] == job.state
    assert delivery.seq == job.event_count, "that of the event about the end"
    assert delivery.state == "pending"
    assert delivery.id.startswith("msg_")
    assert "." not in delivery.id, "what is signed is joined by full stops"


def test_a_message_says_what_a_receiver_needs_and_nothing_of_this_machine(sessions: Sessions) -> None:
    add_webhook(sessions)
    add_job(sessions)
    end(sessions)
    add_job(sessions, "j2")
    end(sessions, "failed", "j2")
    succeeded, failed = (json.loads(one.payload) for one in sorted(told(sessions), key=lambda row: row.job_id))
    assert succeeded["data"] == {
        "id": "j1",
        "state": "succeeded",
        "verdict": "pass",
        "model": "a/b",
        "output": f"a/c@{'0' * 40}",
        "labels": {"run": "7"},
        "error_code": None,
        "job_url": "https://streamline.example/v1/jobs/j1",
        "report_url": "https://streamline.example/v1/jobs/j1/report",
    }
    assert succeeded["timestamp"].endswith("Z")
    assert failed["data"]["error_code"] == "disk_full"
    assert failed["data"]["report_url"] is None
    assert set(succeeded) == {"type", "timestamp", "data"}


def test_an_end_that_is_rolled_back_is_not_told(sessions: Sessions) -> None:
    add_webhook(sessions)
    add_job(sessions)
    with sessions() as session:
        assert jobs.request_cancel(session, "j1")
        session.rollback()
    assert told(sessions) == []


def test_an_endpoint_hears_of_what_it_asked_for(sessions: Sessions) -> None:
    add_webhook(sessions, "failures", events=["job.failed"])
    add_webhook(sessions, "one", job_id=None)
    add_webhook(sessions, "gone", disabled_at=db_now())
    add_job(sessions)
    add_webhook(sessions, "other-job", job_id="j1", events=["job.cancelled"])
    end(sessions)
    assert [len(told(sessions, name)) for name in ("failures", "one", "gone", "other-job")] == [0, 1, 0, 0]


def test_a_job_that_is_retried_is_told_of_again_at_its_next_end(sessions: Sessions) -> None:
    add_webhook(sessions)
    add_job(sessions)
    end(sessions, "failed")
    with sessions.begin() as session:
        assert jobs.retry(session, "j1")
    end(sessions)
    assert [delivery.event for delivery in told(sessions)] == ["job.failed", "job.succeeded"]


def test_what_goes_on_is_not_told(sessions: Sessions) -> None:
    add_webhook(sessions)
    add_job(sessions)
    with sessions.begin() as session:
        claim = jobs.claim(session, "j1", owner="w", lease_seconds=60)
        assert claim is not None
        jobs.release(session, "j1", claim.token, reason="the worker is stopping")
    with sessions.begin() as session:
        claim = jobs.claim(session, "j1", owner="w", lease_seconds=-1)
        assert claim is not None
        assert jobs.expire_leases(session, max_attempts=3) == ["j1"]
    assert told(sessions) == []


# --- who may hear of it ----------------------------------------------------------------------------------------------


@pytest.fixture
def by_name(sessions: Sessions) -> dict[str, str]:
    """Ids of keys."""
    with sessions.begin() as session:
        scopes = {"owner": Scope.SUBMIT, "other": Scope.SUBMIT, "friend": Scope.SUBMIT, "admin": Scope.ADMIN}
        return {name: keys.create(session, name, scope)[0].id for name, scope in scopes.items()}


def hearing(sessions: Sessions, by_name: dict[str, str]) -> dict[str, set[str]]:
    """Whose endpoints are told of the end of a job of `owner`'s, by what they asked for."""
    with sessions.begin() as session:
        session.execute(delete(WebhookRow))
    for name, key in by_name.items():
        for jobs_of in (repository.OWN, repository.VISIBLE):
            add_webhook(sessions, f"{name}-{jobs_of}", owner=key, jobs=jobs_of)
    end(sessions)
    heard: dict[str, set[str]] = {repository.OWN: set(), repository.VISIBLE: set()}
    for name in by_name:
        for jobs_of, names in heard.items():
            if told(sessions, f"{name}-{jobs_of}"):
                names.add(name)
    return heard


def test_a_key_hears_of_its_own_jobs_and_if_it_likes_of_all_that_it_may_know_of(
    sessions: Sessions, by_name: dict[str, str]
) -> None:
    add_job(sessions, owner=by_name["owner"])
    assert hearing(sessions, by_name) == {"own": {"owner"}, "visible": set(by_name)}


def test_a_job_about_a_private_repository_is_told_to_nobody_who_may_not_know_of_it(
    sessions: Sessions, by_name: dict[str, str]
) -> None:
    with sessions.begin() as session:
        repo = RepoRow(name="a/b", owner=by_name["owner"], private=True)
        session.add(repo)
        session.flush()
        session.add(RepoGrantRow(repo_id=repo.id, key_id=by_name["friend"]))
    add_job(sessions, owner=by_name["owner"])
    with sessions.begin() as session:
        session.add(JobRepoRow(job_id="j1", name="a/b", private=True))
    assert hearing(sessions, by_name) == {"own": {"owner"}, "visible": {"owner", "friend", "admin"}}


@pytest.mark.parametrize("ended", [{"revoked_at": db_now(-1)}, {"expires_at": db_now(-1)}])
def test_a_key_that_is_worthless_hears_nothing(
    sessions: Sessions, by_name: dict[str, str], ended: dict[str, Any]
) -> None:
    add_job(sessions, owner=by_name["owner"])
    with sessions.begin() as session:
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id.in_([by_name["owner"], by_name["admin"]])).values(ended))
    assert hearing(sessions, by_name) == {"own": set(), "visible": {"other", "friend"}}


def test_what_was_registered_without_a_key_is_told_nothing_once_there_are_keys(sessions: Sessions) -> None:
    add_webhook(sessions)
    add_job(sessions, "before")
    end(sessions, job_id="before")
    with sessions.begin() as session:
        keys.create(session, "first", Scope.ADMIN)
    add_job(sessions, "after")
    end(sessions, job_id="after")
    assert [delivery.job_id for delivery in told(sessions)] == ["before"]


def test_an_endpoint_is_there_for_its_owner_and_for_admins(sessions: Sessions, by_name: dict[str, str]) -> None:
    add_webhook(sessions, owner=by_name["owner"])
    with sessions() as session:
        seen = {
            name: repository.get(session, "w1", Caller(True, name, key, scope)) is not None
            for name, key in by_name.items()
            if (scope := keys.valid_scope_of(session, key))
        }
    assert seen == {"owner": True, "other": False, "friend": False, "admin": True}
