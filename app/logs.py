"""Logging: one JSON object per line on standard error, with the request's id, and stack traces without local values."""

import sys

import structlog


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
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        # Looked up at each line, because the stream may be replaced under us.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
