"""Every way the service can refuse or fail, one class each.

A class's docstring is the meaning of its `code`, which is stable; the `detail` given when it is raised says what to do
next. `app.api.problems` turns them into RFC 9457 documents. Each module holds those of one step, in the order in which
a request takes them: the request by itself (`requests`), what it names (`references`), what exists (`resources`), and
the service (`outages`).
"""

from collections.abc import Mapping
from typing import ClassVar


class ServiceError(Exception):
    """Base of all: something the service refuses or cannot do."""

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500

    def __init__(
        self,
        detail: str,
        *,
        pointer: str | None = None,
        parameter: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Describe one occurrence.

        Args:
            detail: what is wrong here and what to do about it.
            pointer: JSON pointer (RFC 6901) of the offending field in the request's body.
            parameter: name of the offending query, path or header parameter.
            headers: headers of the answer, such as Retry-After.
        """
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.parameter = parameter
        self.headers = dict(headers or {})
