"""What every section of a request has in common."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and halves of surrogate pairs."""

LARGEST_EXACT_INTEGER: Final = 2**53 - 1
"""The largest that every JSON reader keeps exact."""


class Section(BaseModel):
    """Part of a request: unknown fields are refused, numbers are finite, nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


def _no_control_characters(text: str) -> str:
    if FORBIDDEN.search(text):
        raise PydanticCustomError("invalid_request", "must hold no control characters")
    return text


Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_no_control_characters)]
