"""Logging: one JSON object per line on standard error, with the request's id, and stack traces without local values."""

import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from app.core.redaction import Redaction, without_keys


def configure_logging() -> None:
    """Set structlog up for this process, unless that has been done."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Plain traces: the values of local variables may be keys and people's texts.
            structlog.processors.format_exc_info,
            _Redacted(),
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        # Looked up at each line, because the stream may be replaced under us.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


class _Redacted:
    """No line holds a key, and a trace names files of the code by their place in it, and others by their name.

    What the operator is told about a disk or a bucket names it: somebody has to go there.
    """

    def __init__(self) -> None:
        self._redaction = Redaction()

    def __call__(self, _logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Redact the line's texts."""
        for name, value in line.items():
            if isinstance(value, str):
                line[name] = self._redaction(value) if name == "exception" else without_keys(value)
        return line
