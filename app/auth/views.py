"""What clients send and see of API keys."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, field_validator
from pydantic_core import PydanticCustomError

from app.auth.bounds import LONGEST_DAYS, LONGEST_NAME, MOST, MOST_BYTES
from app.auth.keys import KeyState, Limits
from app.db.models import ApiKeyRow
from app.jobs.spec.section import Section

ScopeName = Literal["read", "submit", "admin"]
KeyStateName = Literal["valid", "expired", "revoked"]


class NewApiKey(Section):
    """A key that is to be made."""

    name: Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)] = Field(
        description="Whose key it is, for the list.", examples=["nightly"]
    )
    scope: ScopeName = Field("submit", description="What it allows: `submit` includes `read`, `admin` includes both.")
    days: Annotated[float, Field(gt=0, le=LONGEST_DAYS)] | None = Field(
        None, description="How long it is valid; null: until it is revoked."
    )
    max_queued_jobs: Annotated[int, Field(ge=1, le=MOST)] | None = Field(
        None, description="How many of its jobs may wait at a time; null, here and below: no limit."
    )
    max_requests_per_minute: Annotated[int, Field(ge=1, le=MOST)] | None = Field(
        None, description="How many requests it may send in a minute."
    )
    max_bytes_per_day: Annotated[int, Field(ge=1, le=MOST_BYTES)] | None = Field(
        None, description="How many bytes of request bodies, such as uploads, it may send in a day."
    )

    @field_validator("name")
    @classmethod
    def _readable(cls, name: str) -> str:
        if not name.strip() or not name.isprintable():
            raise PydanticCustomError("invalid_request", "must hold something to read, and no control characters")
        return name

    @property
    def limits(self) -> Limits:
        """What it may use."""
        return Limits(self.max_queued_jobs, self.max_requests_per_minute, self.max_bytes_per_day)


class ApiKey(BaseModel):
    """An API key, without the key itself."""

    id: str
    prefix: str = Field(description="How the key begins: enough to tell it apart, useless for getting in.")
    name: str
    scope: ScopeName
    state: KeyStateName
    created_at: datetime
    expires_at: datetime | None = Field(description="Null: it is valid until it is revoked.")
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(
        description="When a request came with it or with one of its logins, to a minute or two; null: none is known."
    )
    max_queued_jobs: int | None
    max_requests_per_minute: int | None
    max_bytes_per_day: int | None

    @classmethod
    def of(cls, row: ApiKeyRow, state: KeyState) -> Self:
        """The view of a row."""
        made = {"prefix": f"hf_{row.id}", "state": state.value}
        return cls.model_validate({name: getattr(row, name) for name in ApiKey.model_fields if name not in made} | made)


class CreatedApiKey(ApiKey):
    """A key that has just been made, with the key itself."""

    key: str = Field(description="The key itself, for `Authorization: Bearer`; shown this once.")

    @classmethod
    def with_key(cls, row: ApiKeyRow, key: str) -> Self:
        """The view of a new row."""
        return cls(**ApiKey.of(row, KeyState.VALID).model_dump(), key=key)


class ApiKeyPage(BaseModel):
    """Keys, newest first."""

    items: list[ApiKey]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")
