"""The `Range` header of a download (RFC 9110, section 14).

Starlette's FileResponse answers ranges too, but it answers a malformed one with 400, ranges on HEAD with 206, and a 416
without the headers that hub clients need; here these are decided by the hub's own table.
"""

import re
from dataclasses import dataclass

_UNIT = re.compile(r"\s*bytes\s*=(?P<set>.*)", re.IGNORECASE | re.DOTALL)
_ONE = re.compile(r"[ \t]*(?P<first>[0-9]*)-(?P<last>[0-9]*)[ \t]*")
_MOST_DIGITS = 19  # more than any file has bytes; keeps int() cheap


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` to `end` (exclusive) of a representation of `size` bytes; never empty."""

    start: int
    end: int
    size: int

    @property
    def content_range(self) -> str:
        """The Content-Range of the 206 answer."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


class RangeNotSatisfiable(ValueError):  # noqa: N818 - the status's own name
    """No byte of the file is asked for, or the header is malformed: 416."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The one range that is asked for, or None where the whole file is the answer.

    The whole file is also the answer to another unit than bytes (a server must ignore it) and to several ranges at once
    (it may ignore them; no model client asks for them).

    Raises:
        RangeNotSatisfiable: nothing of the range lies in the file, or the header is malformed.
    """
    match = _UNIT.fullmatch(header) if header is not None else None
    if match is None or "," in match["set"]:
        return None
    one = _ONE.fullmatch(match["set"])
    if one is None or not (one["first"] or one["last"]) or max(len(one["first"]), len(one["last"])) > _MOST_DIGITS:
        raise RangeNotSatisfiable
    if one["first"]:
        start = int(one["first"])
        end = min(int(one["last"]) + 1, size) if one["last"] else size
    else:
        start, end = max(size - int(one["last"]), 0), size
    if start >= end:
        raise RangeNotSatisfiable
    return ByteRange(start, end, size)


def etag_matches(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this ETag (both quoted); weak comparison, as section 13.1.2 asks for."""
    if header is None:
        return False
    return header.strip() == "*" or any(one.strip().removeprefix("W/") == etag for one in header.split(","))
