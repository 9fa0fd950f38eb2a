"""Pages that keep a list up to date: an open page asks for the list alone, and is told cheaply that nothing is new."""

import hashlib
from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response

from app.hub.byte_range import etag_matches
from app.web.rendering import render


def part_of(
    request: Request, template: str, shown: Sequence[Any], *, if_none_match: str | None, **values: Any
) -> Response:
    """The page or the part that the template makes of `values`, under an ETag; 304 to who has it.

    `shown` is what the list shows: the ETag changes with it.
    """
    etag = f'"{hashlib.sha256(repr(shown).encode()).hexdigest()[:32]}"'
    if etag_matches(if_none_match, etag):
        return Response(status_code=304, headers={"ETag": etag})
    answer = render(request, template, etag=etag, **values)
    answer.headers["ETag"] = etag
    return answer
