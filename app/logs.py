"""Logging: one JSON object per line on standard error, with the request's id, and stack traces without local values."""

import logging
import sys
import threading
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Final, TextIO

import structlog

from app.core.redaction import Redaction, without_keys

_TRACE: Final = "Traceback (most recent call last):"


def configure_logging() -> None:
    """Set structlog up for this process, unless that has been done."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *_STAMPS, *_line()],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        # Looked up at each line, because the stream may be replaced under us.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


def route_everything() -> None:
    """Write what libraries log, warn of and die from in the same form: for a process that is all this service's."""
    handler = _StandardError()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *_STAMPS],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_line()],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _died
    threading.excepthook = lambda end: _died(end.exc_type, end.exc_value, end.exc_traceback)


def _died(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, Exception):
        structlog.get_logger("streamline").critical("died", exc_info=(kind, error, trace))


class _StandardError(logging.StreamHandler[TextIO]):
    """Looks the stream up at each line, as above."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """The base class sets it once."""


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
                line[name] = self._redaction(value) if name == "exception" or _TRACE in value else without_keys(value)
        return line


_STAMPS: Final[tuple[Any, ...]] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def _line() -> tuple[Any, ...]:
    return (
        # Plain traces: the values of local variables may be keys and people's texts.
        structlog.processors.format_exc_info,
        _Redacted(),
        structlog.processors.JSONRenderer(default=str),
    )
