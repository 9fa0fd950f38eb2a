"""One place for every setting: environment variables with the prefix STREAMLINE_, checked at boot."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.auth.loopback import is_loopback
from app.core.device_memory import LARGEST_WORKER_MEMORY, card_bytes
from app.webhooks.addresses import AllowList

EMBEDDED_BROKER = "filesystem://"


class SettingsError(Exception):
    """A setting is wrong; the message is one sentence that names the variable and what it may hold."""


class Settings(BaseSettings):
    """What an operator can set. Every field is read from STREAMLINE_<NAME>; the defaults are the embedded mode."""

    model_config = SettingsConfigDict(env_prefix="STREAMLINE_", extra="ignore", frozen=True, allow_inf_nan=False)

    data_dir: Path = Field(Path("streamline-data"), description="Directory of everything that the service keeps.")
    database_url: SecretStr | None = Field(
        None, description="postgresql://... or sqlite:///...; default: SQLite in the data directory."
    )
    broker_url: SecretStr | None = Field(
        None, description="redis://... ; default: the embedded broker, a folder in the data directory."
    )
    store_url: str | None = Field(
        None,
        description="Where blobs and artefacts lie (file:///path or s3://bucket/prefix); default: `store` in the data "
        "directory.",
    )
    s3_endpoint_url: str | None = Field(None, description="S3 server other than AWS, such as http://minio:9000.")
    s3_presigned_seconds: int = Field(
        0,
        ge=0,
        le=7 * 86400,
        description="Where clients can reach the S3 server: how long an address may be fetched from that downloads are "
        "redirected to; 0: downloads go through the service.",
    )
    store_cache_bytes: int = Field(
        200 << 30, ge=0, description="Local copies of an S3 store's blobs are kept up to so many bytes."
    )
    model_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="Directories that models may be imported from, separated like PATH."
    )
    task_data: Path | None = Field(
        None, description="Directory with the files of evaluation tasks (piqa.jsonl, blimp/...); default: none."
    )
    upstream: str = Field(
        "", description="A hub that models which are not here are fetched from, such as https://huggingface.co."
    )
    upstream_token: SecretStr | None = Field(
        None, description="What the upstream hub is shown; sent to that very host and to no other."
    )
    upstream_max_bytes: int = Field(
        200 << 30, ge=1, description="Largest revision that is fetched from the upstream hub, in bytes."
    )
    upstream_fresh_seconds: float = Field(
        60.0,
        ge=0,
        description="How long an answer of the upstream hub (a branch's commit, a no) is not asked for again.",
    )
    trust_remote_code: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(), description="Repos whose own modelling code may be run, separated by commas."
    )
    webhook_private: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Hosts, addresses and networks (10.1.0.0/16), separated by commas, that webhooks may be sent to "
        "although they are not public.",
    )
    webhook_disable_days: float = Field(
        5.0, gt=0, description="A webhook that has taken no message for so many days is disabled."
    )
    webhook_keep_days: float = Field(
        30.0, gt=0, description="How long it is kept what webhooks were sent, and what came of it."
    )
    public_url: str = Field("", description="The service's address as clients see it; default: taken from the request.")

    signing_key: SecretStr | None = Field(
        None, description="Ed25519 private key (PEM) that published revisions are signed with; default: made at start."
    )
    gc_seconds: float = Field(3600.0, gt=0, description="How often blobs that nothing needs are collected.")
    gc_grace_seconds: float = Field(
        86400.0, ge=0, description="A blob that nothing needs stays for so long: it may be on its way into a commit."
    )

    max_body_bytes: int = Field(1 << 20, ge=1024, description="Largest JSON body, in bytes.")
    max_dataset_bytes: int = Field(2 << 30, ge=1024, description="Largest data set upload, in bytes.")
    max_upload_bytes: int = Field(100 << 30, ge=1024, description="Largest file that the hub takes, in bytes.")

    heartbeat_seconds: float = Field(
        2.0, gt=0, description="How often a worker renews its lease and looks for cancels."
    )
    lease_seconds: float = Field(30.0, gt=0, description="How long a silent worker keeps its job.")
    max_attempts: int = Field(
        3, ge=1, description="Attempts per job, counted anew when a stage has been finished since."
    )
    hang_seconds: float = Field(
        600.0, gt=0, description="An engine that sends no event and uses no processor for so long is killed."
    )
    reconcile_seconds: float = Field(
        5.0, gt=0, description="How often lost messages and expired leases are looked for."
    )
    republish_seconds: float = Field(
        15.0, gt=0, description="A queued job is announced again after this long (doubling with each time)."
    )
    activation_bytes: int | None = Field(
        None,
        ge=0,
        description="Disk for hidden states to train on; more are computed anew. Default: half of what is free.",
    )
    stop_grace_seconds: float = Field(10.0, ge=0, description="How long a stopped engine may take to leave by itself.")
    worker_metrics: str = Field(
        "",
        description="host:port where a worker serves its metrics, such as 127.0.0.1:9808; default: none.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the engine computes.")
    worker_memory: int | Literal["auto"] | None = Field(
        None,
        description="GPU memory that this worker takes jobs for: `24g` for a card sold with 24 GB, a number of bytes, "
        "or `auto`, as the device says. Default: it takes every job, and reads a model in layers that does not fit.",
    )
    largest_worker_memory: int = Field(
        LARGEST_WORKER_MEMORY,
        ge=1,
        description="GPU memory of the largest worker, as `80g`: a model that needs more is read in layers there.",
    )

    @field_validator("model_roots", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("worker_memory", "largest_worker_memory", mode="before")
    @classmethod
    def _parse_memory(cls, value: object, info: ValidationInfo) -> object:
        of_this_worker = info.field_name == "worker_memory"
        if not isinstance(value, str) or (of_this_worker and value in {"", "auto"}):
            return value
        # Fewer digits without a unit are gigabytes whose `g` was forgotten.
        if not (found := re.fullmatch(r"([1-9]\d{0,4})g|([1-9]\d{8,15})", value)):
            auto = ", or auto" if of_this_worker else ""
            raise ValueError(f"must be a card's gigabytes, such as 24g, or a number of bytes{auto}")
        return card_bytes(int(found[1])) if found[1] else int(found[2])

    @field_validator("worker_metrics")
    @classmethod
    def _check_metrics(cls, value: str) -> str:
        if value and not ((found := re.fullmatch(r"\S+:(\d{1,5})", value)) and int(found[1]) < 1 << 16):
            raise ValueError("must be host:port with a port of at most 65535, such as 127.0.0.1:9808")
        return value

    @field_validator("trust_remote_code", "webhook_private", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("webhook_private")
    @classmethod
    def _check_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        AllowList.of(value)
        return value

    @field_validator(
        "database_url",
        "broker_url",
        "store_url",
        "s3_endpoint_url",
        "signing_key",
        "task_data",
        "activation_bytes",
        "upstream_token",
        "worker_memory",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _known_schemes(self) -> Self:
        self._check_database()
        self._check_broker()
        self._check_store()
        if self.task_data is not None and not self.task_data.is_dir():
            raise ValueError(f"STREAMLINE_TASK_DATA must name a directory; there is none at {self.task_data}")
        self._check_upstream()
        public = _split("PUBLIC_URL", self.public_url)
        if self.public_url and (public.scheme not in {"http", "https"} or not public.hostname or "@" in public.netloc):
            raise ValueError("STREAMLINE_PUBLIC_URL must be an address such as https://streamline.example.com")
        if self.lease_seconds < 2 * self.heartbeat_seconds:
            raise ValueError(
                "STREAMLINE_LEASE_SECONDS must be at least twice STREAMLINE_HEARTBEAT_SECONDS, or a healthy worker "
                "loses its job"
            )
        return self

    def _check_database(self) -> None:
        if self.database_url is None:
            return
        parts = _split("DATABASE_URL", self.database_url.get_secret_value())
        if parts.scheme == "postgres":
            raise ValueError("STREAMLINE_DATABASE_URL must start with postgresql://, which postgres:// is short for")
        if parts.scheme not in {"postgresql", "postgresql+psycopg", "sqlite"}:
            raise ValueError("STREAMLINE_DATABASE_URL must start with postgresql:// or sqlite://")

    def _check_broker(self) -> None:
        for url in self.broker.split(";"):  # Celery's own way of naming several, of which it takes one that answers
            parts = _split("BROKER_URL", url)
            if parts.scheme not in {"redis", "rediss", "filesystem"}:
                raise ValueError(
                    f"STREAMLINE_BROKER_URL must start with redis:// or rediss://, or be {EMBEDDED_BROKER}"
                )
            if parts.scheme == "filesystem" and self.broker != EMBEDDED_BROKER:
                # Celery would take the rest for a host and go on without it.
                raise ValueError(
                    f"STREAMLINE_BROKER_URL must be exactly {EMBEDDED_BROKER} for the embedded broker; it lies in the "
                    "data directory"
                )
            if not re.fullmatch(r"/?\d*", parts.path):
                raise ValueError("STREAMLINE_BROKER_URL must end with the number of a database, as in redis://host/0")

    def _check_upstream(self) -> None:
        parts = _split("UPSTREAM", self.upstream)
        if self.upstream and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.query):
            raise ValueError("STREAMLINE_UPSTREAM must be the address of a hub, such as https://huggingface.co")
        if "@" in parts.netloc:
            raise ValueError("STREAMLINE_UPSTREAM must hold no credentials; set STREAMLINE_UPSTREAM_TOKEN instead")
        if self.upstream_token and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError(
                "STREAMLINE_UPSTREAM must begin with https:// where STREAMLINE_UPSTREAM_TOKEN is set, or others can "
                "read it"
            )

    def _check_store(self) -> None:
        store = _split("STORE_URL", self.store_url or "file:///")
        server = _split("S3_ENDPOINT_URL", self.s3_endpoint_url or "")
        for name, parts in (("STORE_URL", store), ("S3_ENDPOINT_URL", server)):
            if "@" in parts.netloc:
                raise ValueError(
                    f"STREAMLINE_{name} must hold no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
                    "instead"
                )
        if store.scheme not in {"file", "s3"}:
            raise ValueError("STREAMLINE_STORE_URL must start with file:// or s3://")
        if store.scheme == "file" and store.netloc:
            raise ValueError(
                "STREAMLINE_STORE_URL must name a directory of this machine, as in file:///srv/store: three slashes"
            )
        if store.scheme == "s3" and not store.netloc:
            raise ValueError("STREAMLINE_STORE_URL must name a bucket, as in s3://bucket/prefix")
        if self.s3_endpoint_url and server.scheme not in {"http", "https"}:
            raise ValueError("STREAMLINE_S3_ENDPOINT_URL must start with http:// or https://")

    @property
    def database(self) -> str:
        """The SQLAlchemy URL; a plain `postgresql://` is given the driver that we ship."""
        if self.database_url is None:
            return f"sqlite:///{self.data_dir.absolute() / 'streamline.db'}"
        url = self.database_url.get_secret_value()
        return url.replace("postgresql://", "postgresql+psycopg://", 1)

    @property
    def broker(self) -> str:
        """The Celery broker URL."""
        return self.broker_url.get_secret_value() if self.broker_url else EMBEDDED_BROKER

    @property
    def broker_dir(self) -> Path:
        """Folder of the embedded broker."""
        return self.data_dir.absolute() / "broker"

    @property
    def bucket_url(self) -> str | None:
        """The bucket of blobs and artefacts; None where they lie in `store_dir`."""
        return self.store_url if self.store_url and urlsplit(self.store_url).scheme == "s3" else None

    @property
    def store_dir(self) -> Path:
        """Local directory of blobs and artefacts; where they lie in a bucket, of uploads on their way there."""
        if self.store_url is None or self.bucket_url is not None:
            return self.data_dir.absolute() / "store"
        return Path(urlsplit(self.store_url).path)

    @property
    def work_dir(self) -> Path:
        """Workspaces of running jobs: on disk that every worker of this service can reach, so that another goes on."""
        return self.data_dir.absolute() / "work"

    @property
    def uploads_dir(self) -> Path:
        """What is being uploaded to the hub: on disk that every API process of this service shares."""
        return self.data_dir.absolute() / "uploads"

    @property
    def upstream_dir(self) -> Path:
        """What is being fetched from the upstream hub: on disk that every process of this service shares."""
        return self.data_dir.absolute() / "upstream"

    @property
    def cache_dir(self) -> Path:
        """What can be made again: sampled calibration text, local copies of an S3 store's blobs."""
        return self.data_dir.absolute() / "cache"


def load_settings(**overrides: object) -> Settings:
    """Read the environment; `overrides` win over it.

    Raises:
        SettingsError: one sentence that names the variable.
    """
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise SettingsError(f"{_sentence(first['loc'], first['msg'])}.") from None


def _sentence(where: tuple[int | str, ...], message: str) -> str:
    """What pydantic found, under the name that the operator has set; what looks at several settings names them."""
    message = message.removeprefix("Value error, ")
    if not where:
        return message
    wanted = message.removeprefix("Input should be ")
    if wanted != message:
        message = f"must be {wanted.partition(', unable')[0]}"
    return f"STREAMLINE_{str(where[0]).upper()}{'' if message.startswith('must') else ':'} {message}"


def _split(name: str, url: str) -> SplitResult:
    """The parts of an address; whatever is wrong with it, the message does not repeat it: it may hold a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError(
            f"STREAMLINE_{name} is no address: its port must be a number of at most 65535, and / : @ [ ] in a password "
            "are written %2F %3A %40 %5B %5D"
        ) from None
    return parts
