"""What clients see of a job: the typed answers of the HTTP API."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from app.db.models import JobEventRow, JobRow
from app.jobs.spec.request import JobRequest

StateName = Literal["queued", "running", "succeeded", "failed", "cancelled"]
StageName = Literal["fetch", "score", "select", "train", "assemble", "verify", "evaluate", "benchmark", "publish"]


class Gate(BaseModel):
    """A bar of the request and how the result stands to it."""

    name: str = Field(
        description="What was measured; of a single task as `stability/piqa`.", examples=["perplexity_ratio"]
    )
    limit: float
    value: float | None = Field(description="Null where the measure is not a finite number, which passes no gate.")
    interval: list[float] | None = Field(
        None, description="[low, high], the 95 % bootstrap interval of the value, where one is known."
    )
    passed: bool


class JobError(BaseModel):
    """Why a job failed."""

    code: str = Field(description="Stable name of the kind of failure.")
    detail: str = Field(description="What happened and what to do about it.")
    stage: str | None = Field(None, description="The stage that it happened in.")


class JobResult(BaseModel):
    """What came out of a job that succeeded."""

    model_config = ConfigDict(extra="allow")

    repo: str = Field(description="Repository of the hub that holds the checkpoint.")
    revision: str = Field(description="Its commit, 40 hex digits.")
    checkpoint_sha256: str | None = Field(
        None, description="One hash over all files but the card: equal exactly if every byte is."
    )
    removed_layers: list[int] = Field(description="Indices of the dense model's layers that are gone.")
    metrics: dict[str, Any] = Field(description="Measures, dense and pruned; the same as in the report.")


class Job(BaseModel):
    """A compression job."""

    id: str
    state: StateName
    stage: StageName | None = Field(description="What is being done, or was done last.")
    progress: float = Field(ge=0, le=1, description="Share of the whole work that is done.")
    attempt: int = Field(description="How often a worker has taken the job.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    spec: JobRequest = Field(description="The request with every default filled in, and the model's commit.")
    labels: dict[str, str]
    required_memory_bytes: int | None = Field(
        description="GPU memory that a worker must have to take the job, where workers say how much they have (`GET "
        "/v1/workers`); null: any worker may."
    )
    cancel_requested: bool = Field(description="Whether somebody has asked for the job to be cancelled.")
    verdict: Literal["pass", "fail"] | None = Field(
        description="`fail` when a gate was missed; null until it is known."
    )
    gates: list[Gate]
    error: JobError | None
    result: JobResult | None

    @classmethod
    def of(cls, row: JobRow) -> Self:
        """The view of a row."""
        return cls.model_validate(
            {name: getattr(row, name) for name in cls.model_fields if name != "spec"}
            | {"spec": JobRequest.model_validate(row.spec)}
        )


class JobPage(BaseModel):
    """Jobs, newest first."""

    items: list[Job]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


class JobEvent(BaseModel):
    """Something that happened to a job."""

    id: int = Field(description="Counts up from 1 without gaps; the id of the server-sent event.")
    event: str = Field(
        description="`state`, or an event of the engine: `stage_started`, `stage_finished`, `progress`, `log`; "
        "`metric` (with a `phase`, `step` and `steps` a point of a course: its `loss` or `held_out_loss`); `scores` "
        "(`table[i][n - 1]` is that of the n layers from i on, to 4 digits, at most 8,192 of them; `better` is higher "
        "or lower); `selected` (the `windows` [start, end) that go)."
    )
    time: datetime = Field(description="When the service wrote it down.")
    data: dict[str, Any]

    @classmethod
    def of(cls, row: JobEventRow) -> Self:
        """The view of a row."""
        return cls(id=row.seq, event=row.kind, time=row.time, data=row.data)


class JobEventList(BaseModel):
    """Events of a job in the order in which they happened."""

    items: list[JobEvent]
    next_after: int | None = Field(
        description="Send it as `after` for the events behind these; null when there are none."
    )


class JobFile(BaseModel):
    """An artefact of a job."""

    path: str = Field(description="Relative; append it to /v1/jobs/{id}/files/.")
    size: int = Field(description="Bytes.")
    sha256: str


class JobFileList(BaseModel):
    """The artefacts of a job; none until it has finished."""

    items: list[JobFile]


class ParameterCount(BaseModel):
    """Parameters before and after; tied embeddings count once."""

    dense: int
    pruned: int


class Estimate(BaseModel):
    """What a job would need beside the dense model's own files."""

    disk_bytes: int
    memory_bytes: int
    gpu_memory_bytes: int = Field(
        description="What a GPU must have: with the model whole in it or, where no worker holds it, in layers."
    )


class ReplacementCost(BaseModel):
    """What one replacement per window comes to: the more there are, the less is saved."""

    count: int = Field(description="Windows that get a replacement of their own, over all rounds.")
    parameters_each: int = Field(description="Parameters that each of them adds.")
    removed_parameters: int = Field(description="Parameters of the layers that go, before anything is put in.")
    share_given_back: float = Field(description="Share of those that all replacements together add again.")


class PlanAnswer(BaseModel):
    """What a job would do."""

    removed_layers: list[int] | None = Field(description="Indices; null where only the scores can tell.")
    removed_count: int = Field(
        description="Layers that go, over all windows or rounds; a round that takes out what an earlier one put in "
        "counts it."
    )
    added_parameters: int
    replacements: ReplacementCost
    rounds: list[int] = Field(description="Layers that each round removes; one number where there is one round.")
    parameters: ParameterCount
    sparsity: float = Field(description="Net share of the dense model's parameters that would be gone.")
    estimated: Estimate
