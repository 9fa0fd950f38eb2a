"""What clients send and see: endpoints, deliveries, and the messages themselves."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, field_validator
from pydantic_core import PydanticCustomError

from app.db.models import WebhookDeliveryRow, WebhookRow
from app.jobs.spec.section import Section, Text
from app.webhooks.repository import Muted
from app.webhooks.targets import ALLOWED, LONGEST_URL

EventName = Literal["job.succeeded", "job.failed", "job.cancelled"]
EVENTS: tuple[EventName, ...] = ("job.succeeded", "job.failed", "job.cancelled")
DeliveryState = Literal["pending", "delivered", "failed"]


class NewJobWebhook(Section):
    """What is to be told of one job, and where."""

    url: Annotated[str, Field(min_length=1, max_length=LONGEST_URL)] = Field(
        description=f"Where messages are sent by POST: {ALLOWED}. Redirects are not followed.",
        examples=["https://ci.example.com/hooks/streamline"],
    )
    events: Annotated[list[EventName], Field(min_length=1, max_length=len(EVENTS))] = Field(
        list(EVENTS), description="What is told; default: every end of a job."
    )
    description: Text | None = Field(None, description="For the list.")

    @field_validator("events")
    @classmethod
    def _each_once(cls, events: list[EventName]) -> list[EventName]:
        if len(set(events)) != len(events):
            raise PydanticCustomError("out_of_range", "must name each event once")
        return events


class NewWebhook(NewJobWebhook):
    """What is to be told from now on, and where."""

    jobs: Literal["own", "visible"] = Field(
        "own", description="`own`: jobs submitted with the same API key; `visible`: all that the key may know of."
    )


class Webhook(BaseModel):
    """An address that is told what has happened to jobs."""

    id: str
    url: str
    events: list[EventName]
    jobs: Literal["own", "visible"]
    job_id: str | None = Field(description="The one job that it is about; null: all that `jobs` says.")
    description: str | None
    owner: str = Field(description="Id of the API key that registered it; empty where the service had none.")
    created_at: datetime
    failing_since: datetime | None = Field(description="Since when every attempt has failed; null: the last did not.")
    disabled_at: datetime | None = Field(description="Since when it is told nothing more, until it is enabled.")
    disabled_reason: Literal["gone", "failing"] | None = Field(
        description="`gone`: it has answered 410; `failing`: it has taken no message for days "
        "(STREAMLINE_WEBHOOK_DISABLE_DAYS)."
    )
    old_secret_until: datetime | None = Field(
        description="Until when messages are also signed with the secret before the last rotation."
    )
    muted: Literal["keyless", "key_ended"] | None = Field(
        description="Why it is told nothing any more, until it is registered again. `keyless`: it was registered "
        "before there were keys; `key_ended`: its key was revoked or has expired."
    )

    @classmethod
    def of(cls, row: WebhookRow, muted: Muted | None) -> Self:
        """The view of a row."""
        fields = {name: getattr(row, name) for name in Webhook.model_fields if name != "muted"}
        return cls.model_validate(fields | {"description": row.description or None, "muted": muted})


class CreatedWebhook(Webhook):
    """An endpoint that has just been given a secret, with it."""

    secret: str = Field(
        description="What its messages are signed with, for a library of the Standard Webhooks specification; shown "
        "this once.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )

    @classmethod
    def with_secret(cls, row: WebhookRow, secret: str, muted: Muted | None = None) -> Self:
        """The view of a row whose secret is new."""
        return cls(**Webhook.of(row, muted).model_dump(), secret=secret)


class WebhookPage(BaseModel):
    """Endpoints, newest first."""

    items: list[Webhook]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


class Delivery(BaseModel):
    """A message for an endpoint, and how it went."""

    id: str = Field(description="The message's id, sent as `webhook-id` with every attempt.")
    job_id: str
    event: EventName
    state: DeliveryState = Field(description="`failed`: given up, after the last attempt or because nothing is sent.")
    attempts: int
    status_code: int | None = Field(description="Of the last answer; null where none came.")
    error: str | None = Field(description="Why the last attempt failed.")
    created_at: datetime
    last_attempt_at: datetime | None
    next_attempt_at: datetime | None = Field(description="Null when there is no next attempt.")
    delivered_at: datetime | None

    @classmethod
    def of(cls, row: WebhookDeliveryRow) -> Self:
        """The view of a row."""
        return cls.model_validate({name: getattr(row, name) for name in cls.model_fields})


class DeliveryPage(BaseModel):
    """Deliveries, newest first."""

    items: list[Delivery]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


class EndedJob(BaseModel):
    """A job that has ended, in as few words as a receiver needs to decide what to do."""

    id: str
    state: Literal["succeeded", "failed", "cancelled"]
    verdict: Literal["pass", "fail"] | None = Field(description="`fail` when a gate was missed.")
    model: str = Field(description="Repository of the dense model.")
    output: str | None = Field(description="Repository and revision of the checkpoint, as repo@revision.")
    labels: dict[str, str]
    error_code: str | None = Field(description="Stable name of the kind of failure.")
    job_url: str
    report_url: str | None = Field(description="Null where the job has no report, because it did not succeed.")


class JobEnded(BaseModel):
    """The body of a message (Standard Webhooks 1.0.0, payload structure)."""

    type: EventName
    timestamp: datetime = Field(description="When the job ended.")
    data: EndedJob
