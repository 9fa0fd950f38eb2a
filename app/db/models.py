"""The tables. A job's row is the truth about the job; a queue message is only a hint that carries its id."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.db.clock import UtcDateTime, db_now

Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
BigId = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up INTEGER keys only


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {datetime: UtcDateTime(), dict[str, Any]: Json, list[Any]: Json}  # noqa: RUF012


class JobRow(Base):
    """One compression job."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("jobs_state_created", "state", "created_at"),
        Index("jobs_newest_first", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(16))
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    version: Mapped[int] = mapped_column(Integer, default=1)
    """Counts up with every change that a client can see; the ETag."""
    spec: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    model: Mapped[str] = mapped_column(String(200), index=True)
    owner: Mapped[str] = mapped_column(String(64), default="")
    request_id: Mapped[str] = mapped_column(String(64), default="", server_default="")
    """Id of the request that made it: with it in the worker's log lines one search finds the whole story."""
    trace: Mapped[str] = mapped_column(String(72), default="", server_default="")
    """What joins the spans about it, see `app.tracing`; empty where none are sent."""

    attempt: Mapped[int] = mapped_column(Integer, default=0)
    """Claims so far, over the whole life of the job."""
    failures: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts that ended badly since the last finished stage; at `max_attempts` the job fails."""
    fencing_token: Mapped[int] = mapped_column(Integer, default=0)
    """Counts up with every claim and every loss of a lease; a write with an older one changes nothing."""
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[datetime | None] = mapped_column(index=True)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    published_count: Mapped[int] = mapped_column(Integer, default=0)
    published_at: Mapped[datetime | None]
    required_memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Of the GPU that may carry it out; null: any may, as of the jobs of releases that did not count it."""

    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    event_count: Mapped[int] = mapped_column(Integer, default=0)
    """Events written so far: the next one's `seq` comes out of the same UPDATE that locks the row."""
    verdict: Mapped[str | None] = mapped_column(String(8))
    gates: Mapped[list[Any]] = mapped_column(default=list)
    error: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]


class JobLabelRow(Base):
    """A job's labels once more, so that a list can be filtered by an index."""

    __tablename__ = "job_labels"
    __table_args__ = (Index("job_labels_by_value", "key", "value", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(256))


class JobRepoRow(Base):
    """A repository that a job names (model, output, rivals): who may not know of it may not know of the job."""

    __tablename__ = "job_repos"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    private: Mapped[bool] = mapped_column(default=False)
    """Whether it or the job's model was private when the job was submitted: counts while no repository has the name."""


class JobEventRow(Base):
    """What happened to a job, in order; `seq` is the id of the server-sent event."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    time: Mapped[datetime] = mapped_column(insert_default=db_now())
    kind: Mapped[str] = mapped_column(String(32))
    data: Mapped[dict[str, Any]]


class WorkerRow(Base):
    """A worker that has been seen; what nobody has seen for a while is gone."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    """Machine and process, as in a lease."""
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Of the GPU that it takes jobs for; null: it takes every job."""
    seen_at: Mapped[datetime] = mapped_column(insert_default=db_now())


class IdempotencyRow(Base):
    """An Idempotency-Key: reserved while its request is in flight (`job_id` null), then bound to the job it made."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    reservation: Mapped[str] = mapped_column(String(32))
    """Random; only the request that holds it may complete or free the key."""
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    expires_at: Mapped[datetime]


class DatasetRow(Base):
    """An uploaded data set; the bytes lie in the blob store under their sha256."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("sha256", "name"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    format: Mapped[str] = mapped_column(String(8))
    columns: Mapped[list[Any]] = mapped_column(default=list)
    rows: Mapped[int] = mapped_column(BigInteger)
    owner: Mapped[str] = mapped_column(String(16), default="", server_default="")
    """Id of the API key that uploaded it; empty where the service had none, and for the mirror's."""
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())


class RepoRow(Base):
    """A model repository of the hub."""

    __tablename__ = "repos"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    owner: Mapped[str] = mapped_column(String(16), default="", server_default="")
    """Id of the API key that made it; empty where the service had none."""
    private: Mapped[bool] = mapped_column(default=False)
    gated: Mapped[str | None] = mapped_column(String(8))
    """`auto` or `manual`: its files are for keys that were granted access; null: for every reader."""
    upstream: Mapped[str | None] = mapped_column(String(500))
    """Address of the hub that this is a read-only copy of a repository of; null: our own."""
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now(), index=True)
    last_modified: Mapped[datetime] = mapped_column(insert_default=db_now(), index=True)
    """When `main` moved last; until then, when the repository was made."""


class RepoGrantRow(Base):
    """An API key that may read (and, with its scope, write) a private or gated repository of another key."""

    __tablename__ = "repo_grants"

    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id", ondelete="CASCADE"), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())


class RepoTagRow(Base):
    """A tag of the model at `main` (not of git): what a list is filtered by."""

    __tablename__ = "repo_tags"
    __table_args__ = (Index("repo_tags_by_tag", "tag", "repo_id"),)

    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id", ondelete="CASCADE"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(200), primary_key=True)


class UploadRow(Base):
    """Bytes that a writer of the repository has sent, whether a commit names them yet or not.

    It is the proof of possession: knowing a sha256 makes nobody else's blob one's own. A blob stays as long as its row.
    """

    __tablename__ = "uploads"

    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    git_oid: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now(), index=True)


class CommitRow(Base):
    """An immutable revision of a repository."""

    __tablename__ = "commits"
    __table_args__ = (UniqueConstraint("repo_id", "oid"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id", ondelete="CASCADE"))
    oid: Mapped[str] = mapped_column(String(40), index=True)
    parent: Mapped[str | None] = mapped_column(String(40))
    message: Mapped[str] = mapped_column(Text)
    author: Mapped[str] = mapped_column(String(64), default="", server_default="")
    """Name of the API key that made it; empty where the service had none, and for jobs."""
    job_id: Mapped[str | None] = mapped_column(String(32), index=True)
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())


class CommitFileRow(Base):
    """A file of a commit."""

    __tablename__ = "commit_files"

    commit_id: Mapped[int] = mapped_column(ForeignKey("commits.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(String(1024), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    git_oid: Mapped[str] = mapped_column(String(40))
    since: Mapped[int | None] = mapped_column(BigInteger)
    """Id of the commit that gave the path this content."""


class CommitRemovalRow(Base):
    """A path that its parent has and a commit has not: when a directory changed last cannot be told without it."""

    __tablename__ = "commit_removals"

    commit_id: Mapped[int] = mapped_column(ForeignKey("commits.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(String(1024), primary_key=True)


class RefRow(Base):
    """A branch or a tag."""

    __tablename__ = "refs"

    repo_id: Mapped[int] = mapped_column(ForeignKey("repos.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    commit_id: Mapped[int] = mapped_column(ForeignKey("commits.id", ondelete="CASCADE"))


class ApiKeyRow(Base):
    """An API key: its hash, never the key itself."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    """The key's first letters after `hf_`: enough to tell keys apart in a list, useless for getting in."""
    name: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scope: Mapped[str] = mapped_column(String(8))
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    max_queued_jobs: Mapped[int | None]
    max_requests_per_minute: Mapped[int | None]
    max_bytes_per_day: Mapped[int | None] = mapped_column(BigInteger)
    """Of request bodies. Null, in each of the three: no limit."""
    last_used_at: Mapped[datetime | None]
    """To a minute or two; null: not since this is noted."""


class EndedLoginRow(Base):
    """A browser's login that was ended by logging out; kept until its cookie would have been too old anyway."""

    __tablename__ = "ended_logins"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Of the cookie's value."""
    ended_at: Mapped[datetime] = mapped_column(insert_default=db_now(), index=True)


class KeyUsageRow(Base):
    """What a key with a limit has used in the window under way."""

    __tablename__ = "key_usage"

    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    window_start: Mapped[datetime]
    amount: Mapped[int] = mapped_column(BigInteger)


class AuditRow(Base):
    """Who changed, or tried to change, what. Rows are only ever added, and outlive the key that they name."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    time: Mapped[datetime] = mapped_column(insert_default=db_now(), index=True)
    key_id: Mapped[str] = mapped_column(String(16), index=True)
    """Empty where no valid key was sent."""
    key_name: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(16))
    """The HTTP method, or the command on the service's own machine."""
    target: Mapped[str] = mapped_column(String(500))
    """The path, or the id that the command was about."""
    status: Mapped[int]
    """Of the HTTP answer; 0 for a command."""
    request_id: Mapped[str] = mapped_column(String(64))


class WebhookRow(Base):
    """An address that is told what has happened to jobs."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("webhooks_newest_first", "created_at", "id"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(16), default="", index=True)
    """Id of the API key that registered it; empty where the service had none."""
    url: Mapped[str] = mapped_column(String(2000))
    secret: Mapped[str] = mapped_column(String(200))
    """What its messages are signed with, encrypted; see `app.webhooks.signatures`."""
    old_secret: Mapped[str | None] = mapped_column(String(200))
    """The one before the last rotation: it signs too until `old_secret_until`."""
    old_secret_until: Mapped[datetime | None]
    events: Mapped[list[Any]]
    """What it is told: `job.succeeded`, `job.failed`, `job.cancelled`."""
    jobs: Mapped[str] = mapped_column(String(8))
    """`own`: those that its owner submits; `visible`: all that its owner may know of."""
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    """The one job that it is about; null: all that `jobs` says."""
    description: Mapped[str] = mapped_column(String(200), default="")
    service_url: Mapped[str] = mapped_column(String(500))
    """The service's address as whoever registered it sees it: what its messages point to."""
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    failing_since: Mapped[datetime | None]
    """The first attempt that failed since one succeeded."""
    disabled_at: Mapped[datetime | None]
    """Since when it is told nothing more."""
    disabled_reason: Mapped[str | None] = mapped_column(String(8))
    """`gone`: it answered so (410); `failing`: it took nothing for days."""


class WebhookDeliveryRow(Base):
    """One message for one endpoint: written in the transaction that ends the job, sent until somebody takes it."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "job_id", "seq"),
        Index("webhook_deliveries_due", "state", "next_attempt_at"),
        Index("webhook_deliveries_newest_first", "webhook_id", "created_at", "id"),
        Index("webhook_deliveries_oldest_first", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """The message's id, which receivers tell repetitions by."""
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    seq: Mapped[int]
    """Number of the job's event that it is about: a job that is retried can end more than once."""
    event: Mapped[str] = mapped_column(String(32))
    payload: Mapped[str] = mapped_column(Text)
    """Exactly what is sent, with every attempt."""
    state: Mapped[str] = mapped_column(String(9), default="pending")
    """`pending`, `delivered`, or `failed`: given up."""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    """Begun so far; the outcome of an older one than the last changes nothing."""
    failures: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts that failed since the message was made or its delivery was asked for again."""
    next_attempt_at: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None] = mapped_column(index=True)
    """Until when the attempt under way is its sender's alone."""
    last_attempt_at: Mapped[datetime | None]
    status_code: Mapped[int | None]
    """Of the last answer."""
    error: Mapped[str | None] = mapped_column(String(300))
    """Why the last attempt failed."""
    created_at: Mapped[datetime] = mapped_column(insert_default=db_now())
    delivered_at: Mapped[datetime | None]


class BlobRow(Base):
    """What the collection has to know about a blob: put or named when, and whether it is being collected."""

    __tablename__ = "blobs"
    __table_args__ = (Index("blobs_state_touched", "state", "touched_at"),)

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(9), default="kept")
    """`kept`; `absent`: may be named, but its bytes are not here: at the upstream hub until they are asked for, or lost
    until they are sent again; `condemned`: nothing may name it any more, its bytes go next; `gone`."""
    touched_at: Mapped[datetime] = mapped_column(insert_default=db_now())


class BlobHoldRow(Base):
    """A blob that a job needs until it ends, whatever happens to the repository that it came from."""

    __tablename__ = "blob_holds"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)
